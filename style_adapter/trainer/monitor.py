"""A referee for the game: gives a winning discriminator less say, and stops a run that has gone wrong."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import gt, lt
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

from .terminal import say

_DOWN, _UP = 0.5, 1.1  # down at once, up slowly: seven good means make up for one bad one


@dataclass(frozen=True)
class Check:
    """One way in which a run goes wrong: the running mean of a statistic is beyond its bound."""

    statistic: str
    """What is watched; its bound is the option monitor_<statistic>."""
    beyond: Callable[[float, float], bool]
    """Whether a mean and a bound mean trouble."""
    finding: str
    """What was found, with a place for the mean."""
    remedy: str
    """What to change."""
    reason: str = ""
    """What `trainer.stop_reason` begins with, where training stops."""

    def found(self, mean: float, bound: float) -> str:
        """The finding with its numbers."""
        return f"{self.finding.format(mean)} (monitor_{self.statistic}={bound:g})"


TROUBLES = (
    Check(
        "d_accuracy",
        gt,
        "D wins with an accuracy of {:.2f}",
        "lower discriminator_learning_rate or raise instance_noise if it stays so",
    ),
    Check("content", lt, "the samples' content is down to {:.2f}", "lower w_adv, w_feat or w_cls if it stays so"),
)
STOPS = (
    Check(
        "copy_rate",
        gt,
        "{:.0%} of the samples are copies",
        "raise novel_token_weight, w_adv or w_cls, or lower w_rec",
        "copying",
    ),
    Check(
        "repetition_rate",
        gt,
        "{:.0%} of the samples' words repeat what stands just before them",
        "raise w_ce, w_rec or w_kl, or lower w_adv",
        "repetition",
    ),
    Check(
        "same_output",
        gt,
        "{:.0%} of the sources get one and the same output",
        "lower w_adv, w_feat and w_cls, or raise w_ce, w_rec or w_div",
        "collapse",
    ),
    Check(
        "distinct_2",
        lt,
        "only {:.0%} of the samples' bigrams are different ones",
        "lower w_adv, w_feat and w_cls, or raise w_ce, w_rec or w_div",
        "collapse",
    ),
)


class GameMonitor(TrainerCallback, ExportableState):
    """Watches the discriminator and the samples of a run through running means, and acts on what it sees.

    Means are taken over the last `monitor_patience` log lines that hold D's accuracies, and over as many looks at
    samples; a mean that was acted on begins anew.

    - D wins (mean of its accuracies on real and fake texts above `monitor_d_accuracy`), or the samples lose their
      content (under `monitor_content`): the weights of the adversary's terms, w_adv, w_feat and w_cls, are halved,
      down to `monitor_floor` of what they were. They come back by a tenth a time when all is well.
    - All samples alike, copied, or going round in circles (`monitor_same_output`, `monitor_distinct_2`,
      `monitor_copy_rate`, `monitor_repetition_rate`): training ends, with a reason. Before `adversary_start` samples
      do not count: a fresh adapter copies, or babbles as its backbone does.

    Each action is one sentence on the terminal. A `StyleTrainer` makes one for itself, unless it is given one; bounds
    are the trainer's arguments, and a bound of None turns its check off. `trainer.adversary_scale` and
    `trainer.stop_reason` read it.

    Example:
        >>> monitor = GameMonitor()
        >>> monitor.adversary_scale, monitor.stop_reason
        (1.0, None)
    """

    def __init__(self) -> None:
        """All is well."""
        self.adversary_scale = 1.0
        self.stop_reason: str | None = None
        self.windows: dict[str, list[float]] = {}
        self._training = False

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; not the bounds, so that a run that was stopped can go on with others."""
        windows = {name: list(values) for name, values in self.windows.items()}
        kept = {"adversary_scale": self.adversary_scale, "stop_reason": self.stop_reason, "windows": windows}
        return {"args": {}, "attributes": kept}

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A run knows nothing at its start, and a resumed one what its checkpoint knew."""
        self._training = True
        if state.global_step == 0:
            self.adversary_scale, self.windows = 1.0, {}

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A run that goes on has not been stopped."""
        self.stop_reason = None

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """What is evaluated afterwards is no part of the run."""
        self._training = False

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes in what was logged, and acts where a mean is beyond its bound."""
        if not self._training or not logs:
            return
        found = _accuracy(logs) | (_statistics(logs) if args.plays_at(state.global_step) else {})
        for name, value in found.items():
            self.windows[name] = [*self.windows.get(name, []), value][-args.monitor_patience :]
        for check, finding in self._beyond(STOPS, args):
            self.stop_reason = f"{check.reason}: {finding}; {check.remedy}"
            say(f"Stopped at step {state.global_step}: {self.stop_reason}.", args, state)
            control.should_training_stop = True
            self.windows = {}
            return
        self._balance(args, state)

    def _balance(self, args: Any, state: TrainerState) -> None:
        """Halves the adversary's weight where D wins or content falls; a tenth more where neither does."""
        for check, found in self._beyond(TROUBLES, args):
            self.windows[check.statistic] = []
            lower = max(args.monitor_floor, self.adversary_scale * _DOWN)
            if lower < self.adversary_scale:
                self.adversary_scale = lower
                now = f"the adversary's weight is now x {lower:.3g}"
                say(f"Step {state.global_step}: {found}; {now}; {check.remedy}.", args, state)
            return
        watched = [self.windows[check.statistic] for check in TROUBLES if check.statistic in self.windows]
        # A mean that was acted on is empty: nobody knows yet whether it is well.
        if self.adversary_scale < 1 and watched and all(len(window) >= args.monitor_patience for window in watched):
            self.adversary_scale = min(1.0, self.adversary_scale * _UP)
            back = f"all is well; the adversary's weight is back at x {self.adversary_scale:.3g}"
            say(f"Step {state.global_step}: {back}.", args, state)
            self.windows["d_accuracy"] = []

    def _beyond(self, checks: tuple[Check, ...], args: Any) -> Iterator[tuple[Check, str]]:
        """The checks whose mean is beyond its bound, each with what was found."""
        for check in checks:
            window, bound = self.windows.get(check.statistic, []), getattr(args, f"monitor_{check.statistic}")
            if bound is None or len(window) < args.monitor_patience:
                continue
            mean = sum(window) / len(window)
            if check.beyond(mean, bound):
                yield check, check.found(mean, bound)


def _accuracy(logs: Mapping[str, float]) -> dict[str, float]:
    """D's accuracy, the mean over real and fake texts, where a line has both."""
    both = [logs[name] for name in ("d_accuracy_real", "d_accuracy_fake") if name in logs]
    return {"d_accuracy": sum(both) / 2} if len(both) == 2 else {}


def _statistics(logs: Mapping[str, float]) -> dict[str, float]:
    """The sample statistics of a line, those of an evaluation too."""
    names = ["content", *(check.statistic for check in STOPS)]
    kinds = ("eval", "sample")
    return {name: float(logs[f"{kind}_{name}"]) for kind in kinds for name in names if f"{kind}_{name}" in logs}
