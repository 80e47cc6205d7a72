"""Rewrites scored by everything at once: the table before and after, and of other systems' outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
from peft import PeftModel
from transformers import EvalPrediction, PreTrainedTokenizerBase

from ..fluency import BackboneScorer
from ..inference import transfer
from ..metrics import (
    ContentBLEU,
    CopyRate,
    Diversity,
    Fluency,
    Joint,
    Judge,
    LanguageScorer,
    Number,
    References,
    SemanticSimilarity,
    StyleAccuracy,
    TextMetric,
    check_lines,
    check_unseen,
    groups_of,
    judge_named,
    reference_lists,
)
from ..model import styles_of
from ..style import OFF
from .report import ACCURACY, Evaluation

VARIETY_SHOWN = ("distinct_1", "distinct_2", "expected_distinct", "compression_ratio")  # the fast ones


@dataclass(frozen=True)
class StyleTransferEvaluator:
    """Scores rewrites by judges, BLEU, similarity, J, perplexity, copies and variety, with intervals and tests.

    >>> evaluator = StyleTransferEvaluator({"tf-idf": judge})                    # doctest: +SKIP
    >>> print(evaluator.evaluate(model, tokenizer, test_rows).report())          # doctest: +SKIP
    >>> evaluator.score({"theirs": texts}, sources, styles, references=wanted)   # doctest: +SKIP

    `StyleTrainer(compute_metrics=evaluator)` uses it at each evaluation.

    Attributes:
        judges: Name -> `Judge`, or the folder or hub id of a transformers classifier; or a list of them. The first one
            gives J its style. A judge is never the training discriminator nor anything else that training, selection
            or reranking used, and one that was trained on an evaluated line is refused.
        similarity: A sentence-transformers model, as `SemanticSimilarity` takes it; no similarity without one.
        language_model: A causal model, as `Fluency` takes it; the frozen backbone, where there is one, if left out.
        bleu: Options of `ContentBLEU`, such as {"lowercase": True, "tokenize": "none"}.
        samples: Draws of an interval, and of a test.
        seed: Of these draws.
        batch_size: Texts generated or read at once.
    """

    judges: Mapping[str, Judge | str | Path] | Sequence[Judge | str | Path]
    similarity: Any = None
    language_model: Any = None
    bleu: Mapping[str, Any] | None = None
    samples: int = 1000
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuses an evaluator without a judge."""
        if not self.judges:
            raise ValueError(f"judges={self.judges!r} must hold at least one; pass [StyleJudge.fit(texts, styles)]")

    def evaluate(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: datasets.Dataset | Mapping[str, Sequence[Any]],
        *,
        systems: Mapping[str, Sequence[str]] | None = None,
    ) -> Evaluation:
        """Rewrites `rows` with the adapter off ("before") and on ("after"), and scores both beside the copied input.

        Args:
            model: A trained model.
            tokenizer: The backbone's.
            rows: Test rows: `source`, `style`, and `target` where there is one, a text or a list of texts a row.
            systems: What others wrote for the same rows, by name.
        """
        bank = styles_of(model)
        sources, styles = list(rows["source"]), [bank.parse(style) for style in rows["style"]]
        wanted = list(rows["target"]) if "target" in getattr(rows, "column_names", rows) else None
        self.check(sources, wanted)  # before minutes of writing
        outputs = {
            "copy": sources,
            "before": transfer(model, tokenizer, sources, OFF, batch_size=self.batch_size),
            "after": transfer(model, tokenizer, sources, styles, batch_size=self.batch_size),
        }
        for name in systems or {}:
            if name in outputs:
                raise ValueError(f"systems has {name!r}, which must not be one of {list(outputs)}; rename it")
        backbone = BackboneScorer(model, tokenizer, self.batch_size)
        return self.score(
            outputs | dict(systems or {}), sources, bank.labels(styles), references=wanted, scorer=backbone
        )

    def score(
        self,
        outputs: Mapping[str, Sequence[str]],
        sources: Sequence[str],
        styles: Sequence[str],
        *,
        references: References | None = None,
        scorer: LanguageScorer | None = None,
    ) -> Evaluation:
        """Scores what some systems wrote; where lines have several references, each of them against the others too.

        Args:
            outputs: System -> its texts, one a line.
            sources: What was rewritten.
            styles: The style that each output should be in.
            references: What should have been written, a text or a list of texts a line.
            scorer: Stands in for `language_model` where that was left out.

        Raises:
            ValueError: Lists of unequal length, a style unknown to a judge, or a judge that knows one of the lines.
        """
        check_lines(sources=sources, styles=styles, **outputs)
        self.check(sources, references)
        by_line = None if references is None else reference_lists(sources, references)
        rows = {run: (list(texts), by_line) for run, texts in outputs.items()} | _people(by_line)
        numbers = {}
        for run, (texts, wanted) in rows.items():
            columns = {"predictions": texts, "sources": sources, "styles": styles}
            numbers[run] = self._numbers(columns | ({} if wanted is None else {"references": wanted}), scorer)
        signature = self._bleu.signature({"predictions": sources, "references": by_line or sources})
        settings = {"bleu": signature["signature"], "samples": self.samples, "seed": self.seed}
        texts_of = {run: texts for run, (texts, _) in rows.items()}
        return Evaluation(texts_of, numbers, groups_of(styles, len(sources)), settings)

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """`compute_metrics` of `StyleTrainer`: {direction}_{name} and overall_{name}; `style_score`, the mean J.

        Raises:
            ValueError: A task that rewrites nothing.
        """
        outputs: Any = prediction.predictions
        wanted: Any = prediction.label_ids
        inputs: Any = prediction.inputs
        if not inputs:
            raise ValueError("compute_metrics=StyleTransferEvaluator(...) must have a task that rewrites; leave it out")
        found = self.score(
            {"after": outputs}, inputs["sources"], inputs["styles"], references=wanted, scorer=inputs.get("scorer")
        ).scores["after"]
        flat = {
            f"{direction}_{name}": one.value for direction, by_name in found.items() for name, one in by_name.items()
        }
        return flat | {"style_score": next(reversed(found.values()))["joint"].value}

    def check(self, sources: Sequence[str], references: References | None = None) -> None:
        """Refuses a judge that was trained on one of these lines.

        Raises:
            ValueError: Such a judge.
        """
        lines = [text for line in references or () for text in ([line] if isinstance(line, str) else line)]
        for name, judge in self._judges.items():
            check_unseen(judge, [*sources, *lines], name=f"judge {name!r}")

    @cached_property
    def _judges(self) -> dict[str, Judge]:
        """The judges by name, loaded."""
        given = self.judges
        named = (
            given if isinstance(given, Mapping) else {_name(judge, place): judge for place, judge in enumerate(given)}
        )
        return {name: judge_named(judge) for name, judge in named.items()}

    @cached_property
    def _loaded(self) -> dict[str, Any]:
        """The models that were named, loaded once."""
        model = self.language_model
        named = LanguageScorer.load(model, batch_size=self.batch_size) if isinstance(model, str | Path) else model
        given = self.similarity
        similar = None if given is None else SemanticSimilarity(given, batch_size=self.batch_size)
        return {"scorer": named, "similarity": similar}

    @cached_property
    def _bleu(self) -> ContentBLEU:
        """BLEU as it was asked for."""
        return ContentBLEU(**self.bleu or {})

    def _numbers(self, columns: Mapping[str, Any], scorer: LanguageScorer | None) -> dict[str, Number]:
        """Every number of one run; J's fluency and perplexity by `language_model`, or else by `scorer`."""
        scorer = scorer if self._loaded["scorer"] is None else self._loaded["scorer"]
        (_, first), *others = self._judges.items()
        found = {**StyleAccuracy(first).numbers(columns)}
        found |= {f"{ACCURACY}_{name}": StyleAccuracy(judge).numbers(columns)[ACCURACY] for name, judge in others}
        metrics: list[TextMetric] = [self._bleu, Joint(first, scorer), CopyRate(), Diversity(VARIETY_SHOWN)]
        if self._loaded["similarity"] is not None:  # an empty metric is false
            metrics.append(self._loaded["similarity"])
        if scorer is not None and scorer.reads:
            metrics.append(Fluency(scorer))
        for metric in metrics:
            found |= metric.numbers(columns)
        del found["style"]  # J's factor is the first accuracy
        return found


def _people(by_line: Sequence[Sequence[str]] | None) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Each human reference as a run of its own, with the other ones as its references; none of single references."""
    most = min(map(len, by_line)) if by_line else 0
    if by_line is None or most < 2:
        return {}
    return {
        f"human {place + 1}": (
            [line[place] for line in by_line],
            [[*line[:place], *line[place + 1 :]] for line in by_line],
        )
        for place in range(most)
    }


def _name(judge: Judge | str | Path, place: int) -> str:
    """What a judge of a list is called."""
    return str(judge) if isinstance(judge, str | Path) else f"judge {place + 1}"
