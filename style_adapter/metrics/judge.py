"""Which style a text is in: needs scikit-learn, in the extra `style_adapter[eval]`, imported at first use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from .inputs import check_lines, extra

# Words, and each punctuation mark as a word of its own: quotation marks and colons tell styles apart as well.
_WORD_OR_MARK = r"\w+|[^\w\s]"


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

    @classmethod
    def fit(cls, texts: Sequence[str], styles: Sequence[str]) -> "StyleJudge":
        """A judge fitted on `texts` and their `styles`; equal data gives an equal judge.

        Raises:
            ValueError: no text, lists of unequal length, or fewer than two styles.
            ImportError: scikit-learn is not installed.
        """
        check_lines(texts=texts, styles=styles)
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
        pipeline.fit(list(texts), list(styles))
        return cls(pipeline, tuple(map(str, pipeline.classes_)))

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
        self._check_styles([style])
        return self.pipeline.predict_proba(list(texts))[:, self.styles.index(style)]

    def accuracy(self, texts: Sequence[str], styles: Sequence[str]) -> float:
        """mean_i [argmax_s P(s | x_i) = s_i], 0..1: the share of texts judged to be in their style.

        Raises:
            ValueError: no text, lists of unequal length, or a style that the judge was not fitted on.
        """
        check_lines(texts=texts, styles=styles)
        self._check_styles(styles)
        return float(np.mean(right_styles(texts, styles, self)))

    def _check_styles(self, styles: Sequence[str]) -> None:
        """Raise for the first style that the judge does not know."""
        for style in styles:
            if style not in self.styles:
                known = list(self.styles)
                raise ValueError(f"style={style!r} must be one of {known}; fit the judge on texts of that style too")


def right_styles(texts: Sequence[str], styles: Sequence[str], judge: StyleJudge) -> list[bool]:
    """[judge(x_i) = s_i] of each text; a style that the judge does not know is never right.

    Raises:
        ValueError: no text, or lists of unequal length.
    """
    check_lines(texts=texts, styles=styles)
    return [judged == style for judged, style in zip(judge.predict(texts), styles, strict=True)]


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
