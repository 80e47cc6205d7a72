"""What the metrics in `modules` share: the library `evaluate`'s class, made to take any columns and give intervals."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, no_type_check

import datasets

try:
    import evaluate
except ImportError as missing:
    raise ImportError("metrics as classes need evaluate; pip install 'style_adapter[eval]'") from missing

from .inputs import check_lines
from .intervals import Groups, Number, difference, groups_of

Numbers = Mapping[str, Number]
Columns = Mapping[str, Any]
COLUMNS = ("predictions", "sources", "references", "styles")


class TextMetric(evaluate.Metric):
    """Numbers of output texts, overall and by direction.

    `compute` takes the columns that the metric needs, each a list with one entry a line: `predictions`, `sources`,
    `references` (a text or a list of texts a line) and `styles`, the style that each prediction should be in, which is
    its direction. It returns each number by name, its 95 % interval under `intervals`, and under `directions` the same
    for each style. Overall, means over lines are averaged over directions, all of one weight; numbers of a corpus
    (BLEU, perplexity a token, variety) are those of all lines.

    Args:
        samples: Draws of an interval, and of a test.
        seed: Of these draws.
        options: What `evaluate.Metric` takes, such as `num_process` and `experiment_id`.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """The columns that it cannot do without."""

    def __init__(self, *, samples: int = 1000, seed: int = 0, **options: Any) -> None:
        """Keeps the texts in memory where there is one process."""
        in_memory = options.get("num_process", 1) == 1
        super().__init__(seed=seed, **{"keep_in_memory": in_memory} | options)
        self.samples = samples

    @abstractmethod
    def numbers(self, columns: Columns) -> Numbers:
        """Each number by name, ready to be estimated on any of the lines; `columns` are those of `compute`."""

    def signature(self, columns: Columns) -> dict[str, str]:
        """What else must be said of the numbers for others to compare with them."""
        return {}

    # evaluate copies these three with their docstrings, which a checker of types would wrap away.
    @no_type_check
    def add_batch(self, **columns: Any) -> None:
        """Keeps some lines until `compute()`; the first lines settle which columns there are."""
        given = _given(columns)
        if self.writer is None:
            self._settle(given)
        super().add_batch(**given)

    @no_type_check
    def add(self, **columns: Any) -> None:
        """Keeps one line: prediction, and as the metric needs them source, reference and style."""
        self.add_batch(**{f"{name}s": [entry] for name, entry in columns.items()})

    @no_type_check
    def compute(self, **columns: Any) -> dict[str, Any] | None:
        """The numbers of these columns, or of what was added before."""
        given = _given(columns)
        if given:
            self._settle(given)
        return super().compute(**given)

    def compare(self, predictions: Sequence[str], others: Sequence[str], **columns: Any) -> dict[str, Any]:
        """Each number of `predictions` less that of `others`, outputs of another system on the same lines.

        {name: {"value", "low", "high", "p_value"}}, and under `directions` the same for each style; see `LineSums` and
        `TextNumber` for the tests.
        """
        given = self._checked({"predictions": predictions, **columns})
        check_lines(predictions=predictions, others=others)
        mine, theirs = self.numbers(given), self.numbers({**given, "predictions": others})

        def differences(groups: Groups) -> dict[str, Any]:
            settings = {"samples": self.samples, "seed": self.seed}
            return {name: difference(mine[name], theirs[name], groups, **settings).to_dict() for name in mine}

        return _by_direction(differences, given.get("styles"), len(predictions))

    def _compute(self, **columns: Any) -> dict[str, Any]:
        """What `evaluate.Metric.compute` returns."""
        given = self._checked(columns)
        numbers = self.numbers(given)

        def estimates(groups: Groups) -> dict[str, Any]:
            found = {n: number.estimate(groups, samples=self.samples, seed=self.seed) for n, number in numbers.items()}
            values: dict[str, Any] = {name: estimate.value for name, estimate in found.items()}
            return values | {"intervals": {name: [estimate.low, estimate.high] for name, estimate in found.items()}}

        return _by_direction(estimates, given.get("styles"), len(given["predictions"])) | self.signature(given)

    def _checked(self, columns: Columns) -> dict[str, Any]:
        """The columns that were given, all of one length, those that are needed among them."""
        given = _given(columns)
        for name in ("predictions", *self.needs):
            if name not in given:
                raise ValueError(
                    f"{name}=None must be given for {type(self).__name__}; pass a list with one entry a line"
                )
        check_lines(**given)
        return given

    def _info(self) -> Any:
        """evaluate's description of the metric."""
        text = (type(self).__doc__ or "").strip()
        usage = TextMetric.__doc__ or ""
        return evaluate.MetricInfo(
            description=text, citation="", inputs_description=usage, features=_features(COLUMNS[:1])
        )

    def _settle(self, columns: Columns) -> None:
        """Makes evaluate keep these columns: which of them there are is the user's choice."""
        lists = len(columns.get("references", ())) > 0 and not isinstance(columns["references"][0], str)
        self.info.features = _features(tuple(columns), lists=lists)


def _by_direction(
    report: Callable[[Groups], dict[str, Any]], styles: Sequence[str] | None, lines: int
) -> dict[str, Any]:
    """What `report` says of all directions together, and of each where styles are given."""
    groups = groups_of(styles, lines)
    overall = report(list(groups.values()))
    if styles is None:
        return overall
    return overall | {"directions": {style: report([rows]) for style, rows in groups.items()}}


def _given(columns: Columns) -> dict[str, Any]:
    """The columns that are not None.

    Raises:
        TypeError: A column that no metric has.
    """
    for name in columns:
        if name not in COLUMNS:
            raise TypeError(
                f"{name!r} must be one of {', '.join(COLUMNS)}; what a metric is made of goes to its constructor"
            )
    return {name: column for name, column in columns.items() if column is not None}


def _features(names: Sequence[str], *, lists: bool = False) -> datasets.Features:
    """The columns as Arrow keeps them."""
    text = datasets.Value("string")
    return datasets.Features({n: datasets.List(text) if lists and n == "references" else text for n in names})
