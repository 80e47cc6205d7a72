"""What a run says on the terminal: a line that a person can read in place of Trainer's dict, samples, sentences."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerState, TrainingArguments


def _number(value: float) -> str:
    """Six places: three decimals, or a power of ten."""
    return f"{value:6.3f}" if value == 0 or 1e-3 <= abs(value) < 100 else f"{value:6.0e}"


def _share(value: float) -> str:
    """0..1 in four places."""
    return f"{value:4.2f}"


def _bleu(value: float) -> str:
    """0..100 in five places."""
    return f"{value:5.1f}"


def _rate(value: float) -> str:
    """A learning rate in six places, 1.5e-3."""
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"


# What is logged under a name that matches -> its label, "*" being what "*" stood for, and its form; in this order.
_SHOWN = (
    ("loss", "loss", _number),
    ("style_score", "J", _share),
    ("loss_*", "*", _number),
    ("d_accuracy_real", "D real", _share),
    ("d_accuracy_fake", "fake", _share),
    ("grad_norm", "|g|", _number),
    ("d_grad_norm", "|d|", _number),
    ("adversary_scale", "x adv", _share),
    ("style_accuracy", "style", _share),
    ("copy_rate", "copy", _share),
    ("repetition_rate", "rep", _share),
    ("distinct_2", "distinct", _share),
    ("content", "to source", _share),
    ("learning_rate", "lr", _rate),
    ("d_learning_rate", "D lr", _rate),
    ("*", "*", _number),
)
_UNSAID = ("epoch", "step", "total_flos", "same_output", "length_ratio", "*_runtime", "runtime", "*_per_second")
_OF_A_DIRECTION = {
    "joint": ("J", _share),
    "style_accuracy": ("style", _share),
    "content": ("content", _share),
    "fluency": ("fluency", _share),
    "bleu": ("BLEU", _bleu),
    "self_bleu": ("BLEU to source", _bleu),
}
_DIRECTION = re.compile(r"(.+?)_(self_bleu|" + "|".join(name for name in _OF_A_DIRECTION if name != "self_bleu") + ")")
_MOST_DIRECTIONS = 8  # with a hundred styles the means must do


def line_of(logs: Mapping[str, Any], *, step: int, max_steps: int) -> str:
    """What was logged, as a line a person can read; norms by term, and each direction of an evaluation, have their own.

    >>> line_of({"loss": 1.25, "loss_ce": 0.98, "sample_copy_rate": 0.02, "learning_rate": 1e-3}, step=5, max_steps=400)
    'step   5/400  loss  1.250  ce  0.980  copy 0.02  lr 1.0e-3'
    >>> print(line_of({"eval_loss": 0.5, "eval_kjv_joint": 0.4, "eval_runtime": 1.0}, step=400, max_steps=400))
    eval 400/400  loss  0.500
           to kjv  J 0.40
    """
    kind = next((name.removesuffix("_runtime") for name in logs if name.endswith("_runtime")), "step")
    if kind == "train":
        return _farewell(logs, step)
    plain, norms, directions = _sorted_out(logs, kind)
    head = f"{kind} {step:>{len(str(max_steps))}}/{max_steps}"
    lines = ["  ".join([head, *_parts(plain)])]
    if norms:
        lines.append("  ".join(["|g| of".rjust(len(head)), *(f"{term} {_number(norms[term])}" for term in norms)]))
    for direction, scores in directions.items() if len(directions) <= _MOST_DIRECTIONS else ():
        shown = [f"{label} {form(scores[name])}" for name, (label, form) in _OF_A_DIRECTION.items() if name in scores]
        lines.append("  ".join([f"to {direction}".rjust(len(head)), *shown]))
    return "\n".join(lines)


def _sorted_out(
    logs: Mapping[str, Any], kind: str
) -> tuple[dict[str, Any], dict[str, float], dict[str, dict[str, float]]]:
    """What was logged, without its prefix: plain numbers, gradient norms by term, an evaluation's by direction."""
    plain: dict[str, Any] = {}
    norms: dict[str, float] = {}
    directions: dict[str, dict[str, float]] = {}
    for name, value in logs.items():
        own = name.removeprefix(f"{kind}_").removeprefix("sample_")
        if own.startswith("grad_norm_"):
            norms[own.removeprefix("grad_norm_")] = value
        elif kind != "step" and (found := _DIRECTION.fullmatch(own)):
            directions.setdefault(found[1], {})[found[2]] = value
        else:
            plain[own] = value
    return plain, norms, directions


def _parts(logs: Mapping[str, Any]) -> Iterator[str]:
    """`label value` of each number that is there, in the order of the table."""
    waiting = {name: value for name, value in logs.items() if not any(fnmatch(name, hidden) for hidden in _UNSAID)}
    for pattern, label, form in _SHOWN:
        for name in [name for name in waiting if fnmatch(name, pattern)]:
            value, matched = waiting.pop(name), name.removeprefix(pattern.removesuffix("*"))
            yield f"{label.replace('*', matched)} {form(float(value)) if isinstance(value, (int, float)) else value}"


def _farewell(logs: Mapping[str, Any], step: int) -> str:
    """The last line of a run."""
    minutes, seconds = divmod(round(logs["train_runtime"]), 60)
    loss = f"  mean loss {logs['train_loss']:.3f}" if "train_loss" in logs else ""
    return f"done after {step} steps  {minutes} min {seconds} s{loss}"


def sample_lines(
    outputs: Sequence[str], sources: Sequence[str], styles: Sequence[str], right: Sequence[bool] | None
) -> str:
    """`style  right or wrong  source -> output`, a line a sample; long texts are cut for the eye.

    >>> print(sample_lines(["AB!", "cd"], ["ab", "cd"], ["loud", "calm"], [True, False]))
      loud  right  ab -> AB!
      calm  wrong  cd -> cd
    """
    width = max(map(len, styles))
    verdicts = [""] * len(outputs) if right is None else ["  right" if found else "  wrong" for found in right]
    rows = zip(styles, verdicts, sources, outputs, strict=True)
    return "\n".join(f"  {style:<{width}}{verdict}  {_short(x)} -> {_short(y)}" for style, verdict, x, y in rows)


def _short(text: str, most: int = 120) -> str:
    """One line of at most `most` letters, none of which moves the cursor."""
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 3] + "..."


def say(text: str, args: TrainingArguments, state: TrainerState) -> None:
    """Prints above the progress bar, on the main process, unless `log_level` is error or critical."""
    if state.is_world_process_zero and args.get_process_log_level() <= logging.WARNING:
        tqdm.write(text)


class _Spoken:
    """Says log lines."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """The line, in place of Trainer's dict."""
        if logs:
            say(line_of(logs, step=state.global_step, max_steps=state.max_steps), args, state)


class PrintedLines(_Spoken, PrinterCallback):
    """Lines without a progress bar (`disable_tqdm`)."""


class ProgressLines(_Spoken, ProgressCallback):
    """Lines above Trainer's progress bar."""


_INSTEAD_OF: dict[type, type] = {PrinterCallback: PrintedLines, ProgressCallback: ProgressLines}


def speak_in_lines(trainer: Trainer) -> None:
    """Puts our lines where Trainer prints dicts; notebooks keep their table, and a user's own callback stays."""
    for callback in [c for c in trainer.callback_handler.callbacks if type(c) in _INSTEAD_OF]:
        trainer.remove_callback(callback)
        # First, so that what other callbacks have to say about a line stands below it.
        trainer.callback_handler.callbacks.insert(0, _INSTEAD_OF[type(callback)]())
