"""J, the one number of style transfer: style, content and fluency, multiplied sentence by sentence.

Corpus averages can be gamed: copy some lines for their content and make style without content of the others, and both
averages look fair though no line is good. So the factors are multiplied before they are averaged: Krishna et al.
(2020), "Reformulating Unsupervised Style Transfer as Paraphrase Generation" (arXiv 2010.05700), section 3.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from jaxtyping import Float

from .inputs import check_lines
from .judge import Judge, right_styles
from .transfer import References, sentence_chrf


@dataclass(frozen=True)
class JointScore:
    """Means over sentences, each 0..1; `joint` is not the product of the others."""

    joint: float
    """J = mean_i style_i content_i fluency_i."""
    style: float
    """mean_i [judge(y_i) = s_i]."""
    content: float
    """mean_i chrF(y_i, references of i, or its source where there are none)."""
    fluency: float
    """mean_i min(1, p(y_i) / p(x_i)), with p the frozen backbone's geometric mean probability of a token."""

    def to_dict(self) -> dict[str, float]:
        """The four numbers by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class JointReport:
    """J of each direction and of all of them."""

    directions: dict[str, JointScore]
    """By target style, in the order in which the styles first appear."""
    overall: JointScore
    """The mean over directions, all of one weight: `overall.joint` is the number that early stopping maximises."""

    def to_dict(self) -> dict[str, dict[str, float]]:
        """{direction or "overall": {"joint", "style", "content", "fluency"}}."""
        return {
            **{style: score.to_dict() for style, score in self.directions.items()},
            "overall": self.overall.to_dict(),
        }


def joint_report(
    outputs: Sequence[str],
    sources: Sequence[str],
    styles: Sequence[str],
    *,
    judge: Judge,
    references: References | None = None,
    fluency: Sequence[float] | None = None,
) -> JointReport:
    """J_i = style_i content_i fluency_i of each line, averaged within each direction.

    A copy in the wrong style has style_i = 0, an output in the right style that says something else content_i near 0,
    a heap of words that please the judge fluency_i near 0: none of them earns anything.

    Args:
        outputs: What was written, y.
        sources: What it was written from, x.
        styles: The style that each output should be in.
        judge: Tells the styles apart.
        references: What should have been written; content is measured against the sources if left out.
        fluency: Of each output, 0..1, as `relative_fluency` gives it; 1 if left out.

    Raises:
        ValueError: no line, lists of unequal length, or a line without reference.
        ImportError: scikit-learn or sacrebleu is not installed.
    """
    lines = joint_lines(outputs, sources, styles, judge=judge, references=references, fluency=fluency)
    chosen = {style: [wanted == style for wanted in styles] for style in dict.fromkeys(styles)}
    directions = {style: _mean_score(lines[:, rows]) for style, rows in chosen.items()}
    each = np.array([[getattr(score, f.name) for score in directions.values()] for f in fields(JointScore)])
    return JointReport(directions, _mean_score(each))


def joint_lines(
    outputs: Sequence[str],
    sources: Sequence[str],
    styles: Sequence[str],
    *,
    judge: Judge,
    references: References | None = None,
    fluency: Sequence[float] | None = None,
) -> Float[np.ndarray, "4 lines"]:
    """J_i and its factors style_i, content_i and fluency_i, a row each; arguments and errors are `joint_report`'s."""
    fluent = [1.0] * len(outputs) if fluency is None else fluency
    check_lines(outputs=outputs, sources=sources, styles=styles, fluency=fluent)
    right = right_styles(outputs, styles, judge)
    content = sentence_chrf(outputs, sources if references is None else references)
    factors = np.array([right, content, fluent], dtype=float)  # [3, lines]
    return np.vstack([factors.prod(axis=0), factors])


def relative_fluency(
    outputs: Float[np.ndarray, " lines"], sources: Float[np.ndarray, " lines"]
) -> Float[np.ndarray, " lines"]:
    """min(1, exp(l(y_i) - l(x_i))), l the mean log-likelihood of a token: 1 where y is as likely as x, or likelier.

    Against its own source, since a backbone likes some topics and some styles better; capped, since what it likes best
    is short and dull. An empty output, of log-likelihood -inf, has 0.

    >>> relative_fluency(np.array([-2.0, -4.0, -np.inf]), np.array([-3.0, -3.0, -3.0])).round(2).tolist()
    [1.0, 0.37, 0.0]
    """
    written = np.isfinite(outputs)
    return np.where(written, np.exp(np.minimum(0.0, np.where(written, outputs, 0.0) - sources)), 0.0)


def _mean_score(lines: Float[np.ndarray, "4 lines"]) -> JointScore:
    """The mean of each row: joint, style, content, fluency."""
    return JointScore(*map(float, lines.mean(axis=1)))
