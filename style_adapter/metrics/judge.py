"""Which style a text is in: needs scikit-learn, in the extra `style_adapter[eval]`, imported at first use."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from .inputs import check_lines, extra

# Words, and each punctuation mark as a word of its own: quotation marks and colons tell styles apart as well.
_WORD_OR_MARK = r"\w+|[^\w\s]"


@runtime_checkable
class Judge(Protocol):
    """What names the style of a text: a `StyleJudge`, a `ClassifierJudge`, or an object of the user's.

    It must never be the training discriminator, nor anything else that training, selection or reranking has used: what
    a model is optimised against says little of it. Two attributes are read where a judge has them: `styles`, the names
    that it may answer (another one asked for is an error), and `trained_on`, the `line_hashes` of its training texts
    (an evaluation on one of them is refused).
    """

    def predict(self, texts: Sequence[str]) -> Sequence[str]:
        """The style of each text."""
        ...


@dataclass(frozen=True)
class StyleJudge:
    """P(s | x) = softmax_s(W tfidf(x) + b): names the style s of a text x by the words, marks and letters it uses.

    tfidf(x) joins word 1- and 2-grams with 2- to 4-grams of letters inside words, case kept, each with sublinear term
    counts; W and b are fitted by logistic regression (inverse penalty C = 10). It shares nothing with the generator
    or its discriminator: a model must not be judged by what it was trained against. It sees form, not meaning, so
    read its accuracy beside a measure of content.

    >>> judge = StyleJudge.fit(["thou art", "you are", "thou hast", "you have"], ["old", "new", "old", "new"])
    >>> judge.predict(["thou sayest"]), judge.styles
    (['old'], ('new', 'old'))
    """

    pipeline: Any
    """The fitted scikit-learn pipeline: texts in, one column of probability a style out."""
    styles: tuple[str, ...]
    """The style names in the order of the pipeline's columns (alphabetical)."""
    trained_on: frozenset[int] | None = field(default=None, repr=False)
    """The `line_hashes` of the texts that it was fitted on; None if they are not known."""

    @classmethod
    def fit(cls, texts: Sequence[str], styles: Sequence[str], *, without: Iterable[str] = ()) -> "StyleJudge":
        """A judge fitted on `texts` and their `styles`; equal data gives an equal judge.

        Args:
            texts: What it learns from.
            styles: The style of each.
            without: Lines that it must not know, such as those that it will judge: `texts` equal to one are left out.

        Raises:
            ValueError: no text, lists of unequal length, or fewer than two styles.
            ImportError: scikit-learn is not installed.
        """
        check_lines(texts=texts, styles=styles)
        hidden = line_hashes(without)
        kept = [i for i, text in enumerate(texts) if not hidden or line_hash(text) not in hidden]
        texts, styles = [texts[i] for i in kept], [styles[i] for i in kept]
        if len(set(styles)) < 2:
            raise ValueError(f"styles={sorted(set(styles))} must name at least 2 styles; add texts of another style")
        text = extra("sklearn.feature_extraction.text", "StyleJudge")
        words = text.TfidfVectorizer(
            token_pattern=_WORD_OR_MARK, ngram_range=(1, 2), lowercase=False, sublinear_tf=True
        )
        letters = text.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), lowercase=False, sublinear_tf=True)
        sklearn_pipeline = extra("sklearn.pipeline", "StyleJudge")
        pipeline = sklearn_pipeline.make_pipeline(
            sklearn_pipeline.make_union(words, letters),
            extra("sklearn.linear_model", "StyleJudge").LogisticRegression(C=10.0, max_iter=1000),
        )
        pipeline.fit(texts, styles)
        return cls(pipeline, tuple(map(str, pipeline.classes_)), line_hashes(texts))

    def predict(self, texts: Sequence[str]) -> list[str]:
        """argmax_s P(s | x) of each text.

        Raises:
            ValueError: no text.
        """
        check_lines(texts=texts)
        return [str(style) for style in self.pipeline.predict(list(texts))]

    def probability(self, texts: Sequence[str], style: str) -> Float[np.ndarray, " texts"]:
        """P(style | x) of each text, 0..1.

        Raises:
            ValueError: no text, or a style that the judge was not fitted on.
        """
        check_lines(texts=texts)
        check_styles([style], self)
        return self.pipeline.predict_proba(list(texts))[:, self.styles.index(style)]

    def accuracy(self, texts: Sequence[str], styles: Sequence[str]) -> float:
        """mean_i [argmax_s P(s | x_i) = s_i], 0..1: the share of texts judged to be in their style.

        Raises:
            ValueError: no text, lists of unequal length, or a style that the judge was not fitted on.
        """
        return style_accuracy(texts, styles, self)


@dataclass(frozen=True)
class ClassifierJudge:
    """argmax_s P(s | x) by a classifier of transformers, which has learnt elsewhere what styles are."""

    classify: Any
    """transformers' `text-classification` pipeline: texts in, {"label": ...} out."""
    names: Mapping[str, str]
    """The classifier's label -> the style's name."""
    trained_on: frozenset[int] | None = field(default=None, repr=False)
    """The `line_hashes` of its training texts; None, since a model does not say."""

    @classmethod
    def load(
        cls, model: str | Path, *, names: Mapping[str, str] | None = None, batch_size: int = 32
    ) -> "ClassifierJudge":
        """The classifier in a folder or on the hub.

        Args:
            model: Its folder or hub id.
            names: {label: style} where the classifier has other names for the styles; labels left out keep theirs.
            batch_size: Texts read at once.

        Raises:
            ValueError: A label in `names` that the classifier does not have.
        """
        from transformers import pipeline  # imports half of transformers

        classify = pipeline("text-classification", model=str(model), batch_size=batch_size)
        labels = list((classify.model.config.id2label or {}).values())
        for label in names or {}:
            if label not in labels:
                raise ValueError(f"names has {label!r}, which must be one of the classifier's labels {labels}")
        return cls(classify, {label: (names or {}).get(label, label) for label in labels})

    @property
    def styles(self) -> tuple[str, ...]:
        """The names that it may answer."""
        return tuple(self.names.values())

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest style of each text; a text beyond the model's length is cut.

        Raises:
            ValueError: no text.
        """
        check_lines(texts=texts)
        return [self.names[found["label"]] for found in self.classify(list(texts), truncation=True)]


def judge_named(judge: Judge | str | Path) -> Judge:
    """A judge as it is; the classifier of transformers behind a folder or hub id."""
    return ClassifierJudge.load(judge) if isinstance(judge, str | Path) else judge


def line_hash(line: str) -> int:
    """64 bits of a line, whitespace aside, the same in every process."""
    return int.from_bytes(blake2b(" ".join(line.split()).encode("utf-8", "replace"), digest_size=8).digest(), "big")


def line_hashes(lines: Iterable[str]) -> frozenset[int]:
    """What a judge remembers of its training: enough to know a line again, without the line."""
    return frozenset(map(line_hash, lines))


def check_unseen(judge: Judge, lines: Iterable[str], *, name: str = "judge") -> None:
    """Refuses a judge that was trained on one of the lines it is to judge by: it knows them by heart.

    Raises:
        ValueError: Such a judge; one whose `trained_on` is None or missing is believed.
    """
    known = getattr(judge, "trained_on", None) or frozenset()
    different = list(dict.fromkeys(lines))
    seen = [line for line in different if known and line_hash(line) in known]
    if seen:
        raise ValueError(
            f"{name} was trained on {len(seen)} of the {len(different)} evaluated lines, {seen[0]!r} the first, and "
            "must know none of them; fit it on other data, or with StyleJudge.fit(..., without=lines)"
        )


def check_styles(styles: Iterable[str], judge: Judge) -> None:
    """Refuses the first style that the judge does not know; a judge without `styles` is asked for any.

    Raises:
        ValueError: Such a style.
    """
    known = list(getattr(judge, "styles", None) or styles)
    for style in styles:
        if style not in known:
            raise ValueError(f"style={style!r} must be one of {known}; fit the judge on texts of that style too")


def right_styles(texts: Sequence[str], styles: Sequence[str], judge: Judge) -> list[bool]:
    """[judge(x_i) = s_i] of each text; a style that the judge does not know is never right.

    Raises:
        ValueError: no text, or lists of unequal length.
    """
    check_lines(texts=texts, styles=styles)
    return [judged == style for judged, style in zip(judge.predict(texts), styles, strict=True)]


def style_accuracy(texts: Sequence[str], styles: Sequence[str], judge: Judge) -> float:
    """mean_i [judge(x_i) = s_i], 0..1: the share of texts judged to be in their style.

    Raises:
        ValueError: no text, lists of unequal length, or a style that the judge does not know.
    """
    check_lines(texts=texts, styles=styles)
    check_styles(styles, judge)
    return float(np.mean(right_styles(texts, styles, judge)))


def class_scores(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """`accuracy`, the share of right classes, and `macro_f1`, the mean over classes of F1 = 2PR / (P + R); 0..1.

    >>> class_scores([0, 1, 1, 1], [0, 0, 1, 1])["accuracy"]
    0.75

    Raises:
        ValueError: lists of unequal length, or empty ones.
        ImportError: scikit-learn is not installed.
    """
    check_lines(predictions=predictions, labels=labels)
    judged = extra("sklearn.metrics", "class_scores")
    return {
        "accuracy": float(judged.accuracy_score(labels, predictions)),
        "macro_f1": float(judged.f1_score(labels, predictions, average="macro", zero_division=0.0)),
    }
