"""What the tasks that write texts share: what was asked for; how rewrites are made, and how they are scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..inference import transfer
from ..metrics import bleu, joint_report, score_transfer, sentence_chrf
from ..model import styles_of
from .setting import Setting


@dataclass(frozen=True)
class Orders:
    """What was asked for, one a row.

    Attributes:
        sources: The texts to rewrite, or prompts.
        styles: The style that each should be in.
        rewrites: Whether what is written should say what its source says.
    """

    sources: list[str]
    styles: list[Any]
    rewrites: bool = True

    def labels(self, setting: Setting) -> list[str]:
        """The styles as a judge knows them."""
        return styles_of(setting.model).labels(self.styles)


def rewrite(orders: Orders, setting: Setting) -> list[str]:
    """Each source rewritten greedily."""
    batch_size = setting.args.generation_batch_size
    return transfer(setting.model, setting.tokenizer, orders.sources, orders.styles, batch_size=batch_size)


def score_rewrites(
    outputs: Sequence[str], orders: Orders, setting: Setting, *, references: Sequence[str] | None = None
) -> dict[str, float]:
    """J and its factors (0 to 1), BLEU and BLEU to the input (0 to 100) by direction; `style_score`, the mean J.

    Without references both content and BLEU are measured against the sources. Without a judge, where all texts are of
    one style, there is neither style accuracy nor J.
    """
    sources, names, judge = orders.sources, orders.labels(setting), setting.judge
    fluency = setting.scorer.fluency(outputs, sources).tolist()
    if judge is None:
        return _unjudged(outputs, sources, references or sources, names, fluency)
    joint = joint_report(outputs, sources, names, judge=judge, references=references, fluency=fluency)
    scores = score_transfer(outputs, sources, references or sources, names, judge=judge)
    flat = {f"{direction}_{k}": v for direction, s in scores.items() for k, v in s.to_dict().items()}
    for direction, score in joint.directions.items():
        factors = {"joint": score.joint, "content": score.content, "fluency": score.fluency}
        flat |= {f"{direction}_{name}": value for name, value in factors.items()}
    return {**flat, "style_score": joint.overall.joint}


def _unjudged(
    outputs: Sequence[str],
    sources: Sequence[str],
    references: Sequence[str],
    names: Sequence[str],
    fluency: list[float],
) -> dict[str, float]:
    """What `score_rewrites` can say by direction without a judge."""
    lines = {"content": sentence_chrf(outputs, references), "fluency": fluency}
    found: dict[str, float] = {}
    for name in dict.fromkeys(names):
        rows = [row for row, wanted in enumerate(names) if wanted == name]
        texts = [outputs[row] for row in rows]
        found[f"{name}_bleu"] = bleu(texts, [references[row] for row in rows])
        found[f"{name}_self_bleu"] = bleu(texts, [sources[row] for row in rows])
        found |= {f"{name}_{factor}": float(np.mean([values[row] for row in rows])) for factor, values in lines.items()}
    return found
