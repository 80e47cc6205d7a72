"""The metrics as classes of the library `evaluate`, each with directions, intervals and a paired test.

They need no network: nothing is downloaded but a model that is named and not at hand. Each is thin over functions of
this package.

    metric = ContentBLEU()
    metric.compute(predictions=outputs, sources=sources, references=references, styles=styles)
    metric.compare(outputs, others, sources=sources, references=references, styles=styles)
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .diversity import compression_ratio, distinct_n, expected_distinct, mutual_bleu
from .inputs import extra
from .intervals import LineSums, Number, TextNumber, mean_of, ratio
from .joint import joint_lines
from .judge import Judge, check_styles, judge_named, right_styles
from .likelihood import LanguageScorer
from .text_metric import Columns, Numbers, TextMetric
from .transfer import References, best_cosine, bleu_counts, bleu_of_counts, copies, reference_lists, sentence_chrf


class StyleAccuracy(TextMetric):
    """style_accuracy = mean_i [judge(y_i) = s_i], 0..1.

    Args:
        judge: A `Judge`, or the folder or hub id of a transformers classifier whose labels are the styles. Never the
            training discriminator: a model must not be judged by what it was trained against.
        options: As `TextMetric` takes them.
    """

    needs = ("styles",)

    def __init__(self, judge: Judge | str | Path, **options: Any) -> None:
        """Loads the judge, where it is named."""
        super().__init__(**options)
        self.judge = judge_named(judge)

    def numbers(self, columns: Columns) -> Numbers:
        """`style_accuracy`."""
        check_styles(columns["styles"], self.judge)
        return {"style_accuracy": mean_of(right_styles(columns["predictions"], columns["styles"], self.judge))}


class ContentBLEU(TextMetric):
    """bleu, to the references, and self_bleu, to the sources, 0..100: sacrebleu's, whose signature comes with them.

    Args:
        lowercase: Whether case counts for nothing.
        tokenize: How sacrebleu splits words: "none" for texts that are split already.
        options: As `TextMetric` takes them.
    """

    def __init__(self, *, lowercase: bool = False, tokenize: str = "13a", **options: Any) -> None:
        """Keeps sacrebleu's options."""
        super().__init__(**options)
        self.settings: dict[str, Any] = {"lowercase": lowercase, "tokenize": tokenize}

    def numbers(self, columns: Columns) -> Numbers:
        """`bleu` where there are references, `self_bleu` where there are sources."""

        def number(outputs: Sequence[str], lines: References) -> Number:
            return LineSums(bleu_counts(outputs, lines, **self.settings), bleu_of_counts)

        return _against(columns, "bleu", number)

    def signature(self, columns: Columns) -> dict[str, str]:
        """sacrebleu's: the version, and all that BLEU depends on."""
        metric = extra("sacrebleu", "ContentBLEU").BLEU(**self.settings)
        outputs = columns["predictions"]
        sizes = {len(line) for line in reference_lists(outputs, columns.get("references", outputs))}
        metric.num_refs = sizes.pop() if len(sizes) == 1 else -1  # sacrebleu's own mark of numbers that vary
        return {"signature": str(metric.get_signature())}


class ChrF(TextMetric):
    """chrf = mean_i 100 chrF(y_i), to the references, and self_chrf, to the sources, 0..100.

    The mean of sentences, which is J's content, not the corpus score that pools the counts of all lines first.
    """

    def numbers(self, columns: Columns) -> Numbers:
        """`chrf` where there are references, `self_chrf` where there are sources."""
        return _against(columns, "chrf", lambda outputs, lines: mean_of(100 * np.array(sentence_chrf(outputs, lines))))


class SemanticSimilarity(TextMetric):
    """similarity = mean_i cos(e(y_i), e(r_i)), to the nearest reference, and self_similarity, to the sources, -1..1.

    Args:
        model: A sentence-transformers model e: its folder or hub id, or an object with `encode(texts)`.
        batch_size: Texts read at once.
        options: As `TextMetric` takes them.
    """

    def __init__(
        self, model: Any = "sentence-transformers/all-MiniLM-L6-v2", *, batch_size: int = 32, **options: Any
    ) -> None:
        """Loads the model, where it is named."""
        super().__init__(**options)
        named = isinstance(model, str | Path)
        library = extra("sentence_transformers", "SemanticSimilarity") if named else None
        self.model, self.batch_size = library.SentenceTransformer(str(model)) if library else model, batch_size
        self._known: dict[str, Any] = {}  # sources and references come again with each system

    def numbers(self, columns: Columns) -> Numbers:
        """`similarity` where there are references, `self_similarity` where there are sources."""
        return _against(
            columns, "similarity", lambda outputs, lines: mean_of(best_cosine(outputs, lines, self._encode))
        )

    def _encode(self, texts: list[str]) -> Any:
        """e of each text, a row each; every text is read once."""
        new = [text for text in texts if text not in self._known]
        if new:
            vectors = self.model.encode(new, batch_size=self.batch_size, show_progress_bar=False)
            self._known.update(zip(new, np.asarray(vectors), strict=True))
        return np.stack([self._known[text] for text in texts])


class Fluency(TextMetric):
    """perplexity = exp(-sum_i l_i / sum_i T_i), a token, and sentence_perplexity = mean_i exp(-l_i / T_i), a sentence.

    l_i is the log-likelihood of the T_i tokens of output i under a frozen language model; an empty output has none, and
    is left out of both. Perplexity is a weak witness: short, dull text is likely. Compare equal models and sources.

    Args:
        model: A causal language model: its folder or hub id, or a `LanguageScorer`.
        classifier: A judge of acceptability, such as one trained on CoLA: a `Judge`, or the folder or hub id of a
            transformers classifier.
        acceptable: What the classifier calls an acceptable sentence.
        options: As `TextMetric` takes them.
    """

    def __init__(
        self,
        model: LanguageScorer | str | Path,
        *,
        classifier: Judge | str | Path | None = None,
        acceptable: str = "LABEL_1",
        **options: Any,
    ) -> None:
        """Loads what is named."""
        super().__init__(**options)
        self.scorer = LanguageScorer.load(model) if isinstance(model, str | Path) else model
        self.classifier = None if classifier is None else judge_named(classifier)
        self.acceptable = acceptable
        if self.classifier:
            check_styles([acceptable], self.classifier)

    def numbers(self, columns: Columns) -> Numbers:
        """`perplexity` and `sentence_perplexity`; `acceptability`, 0..1, with a classifier."""
        outputs = columns["predictions"]
        sums = self.scorer.sums(outputs)
        written = sums[:, 1] > 0
        each = np.zeros_like(sums)
        each[written] = np.stack([np.exp(-ratio(sums[written])), np.ones(written.sum())], axis=1)
        found: dict[str, Number] = {
            "perplexity": LineSums(sums, lambda total: np.exp(-ratio(total))),
            "sentence_perplexity": LineSums(each, ratio, by_direction=True),
        }
        if self.classifier is None:
            return found
        accepted = right_styles(outputs, [self.acceptable] * len(outputs), self.classifier)
        return found | {"acceptability": mean_of(accepted)}


VARIETY: dict[str, Callable[[Sequence[str]], float]] = {
    "distinct_1": partial(distinct_n, n=1),
    "distinct_2": partial(distinct_n, n=2),
    "expected_distinct": expected_distinct,
    "compression_ratio": compression_ratio,
    "mutual_bleu": mutual_bleu,
}


class Diversity(TextMetric):
    """How varied the outputs are: distinct-1 and -2, EAD, compression ratio and BLEU to one another.

    All but EAD depend on how many texts there are and how long they are: compare systems on the same lines.

    Args:
        chosen: Some of `VARIETY`'s names; all of them if left out. `mutual_bleu` takes most of the time.
        options: As `TextMetric` takes them.
    """

    def __init__(self, chosen: Sequence[str] = tuple(VARIETY), **options: Any) -> None:
        """Checks the names."""
        super().__init__(**options)
        for name in chosen:
            if name not in VARIETY:
                raise ValueError(f"chosen has {name!r}, which must be one of {list(VARIETY)}")
        self.chosen = tuple(chosen)

    def numbers(self, columns: Columns) -> Numbers:
        """The chosen ones."""
        return {name: TextNumber(columns["predictions"], VARIETY[name]) for name in self.chosen}


class CopyRate(TextMetric):
    """copy_rate = mean_i [y_i = x_i], 0..1, whitespace aside."""

    needs = ("sources",)

    def numbers(self, columns: Columns) -> Numbers:
        """`copy_rate`."""
        return {"copy_rate": mean_of(copies(columns["predictions"], columns["sources"]))}


class Joint(TextMetric):
    """joint = mean_i style_i content_i fluency_i, 0..1, multiplied sentence by sentence; see `joint_report`.

    Args:
        judge: As in `StyleAccuracy`.
        model: As in `Fluency`; fluency is 1 without one.
        options: As `TextMetric` takes them.
    """

    needs = ("sources", "styles")

    def __init__(
        self, judge: Judge | str | Path, model: LanguageScorer | str | Path | None = None, **options: Any
    ) -> None:
        """Loads what is named."""
        super().__init__(**options)
        self.judge = judge_named(judge)
        self.scorer = LanguageScorer.load(model) if isinstance(model, str | Path) else model

    def numbers(self, columns: Columns) -> Numbers:
        """`joint`, and the means of its factors `style`, `content` and `fluency`."""
        outputs, sources, references = columns["predictions"], columns["sources"], columns.get("references")
        fluency = None if self.scorer is None else self.scorer.fluency(outputs, sources).tolist()
        lines = joint_lines(
            outputs, sources, columns["styles"], judge=self.judge, references=references, fluency=fluency
        )
        return dict(zip(("joint", "style", "content", "fluency"), map(mean_of, lines), strict=True))


def _against(columns: Columns, name: str, number: Callable[[Sequence[str], References], Number]) -> Numbers:
    """A number to the references, and its like to the sources, of those that are given.

    Raises:
        ValueError: Neither is.
    """
    kinds = {name: "references", f"self_{name}": "sources"}
    outputs = columns["predictions"]
    found = {kind: number(outputs, columns[column]) for kind, column in kinds.items() if column in columns}
    if not found:
        raise ValueError("of sources and references at least one must be given, not neither; pass a list of texts")
    return found
