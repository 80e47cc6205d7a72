"""What a run and an evaluation have left in a folder, as a card shows it."""

import json
from pathlib import Path

from huggingface_hub import EvalResult

PICTURES = {
    "losses.png": "The losses of both sides over the steps.",
    "styles.png": "Style accuracy by direction, and J, over the steps.",
    "joint.png": "J by direction, with 95 % intervals.",
    "trade_off.png": "Style against content.",
    "gates.png": "The gate of each style: a row a layer, a column a rank.",
}
RUNS = {"after": "this adapter", "copy": "the input copied"}  # of an evaluation, as the index names them
INDEXED = {"joint": "J", "style_accuracy": "style accuracy", "bleu": "BLEU", "self_bleu": "BLEU to the input"}


def pictures_in(folder: Path) -> str:
    """The pictures of a run that stand in its folder."""
    shown = [f"![{caption}]({name})" for name, caption in PICTURES.items() if (folder / name).exists()]
    return "\n\n".join(["## Pictures", *shown]) + "\n\n" if shown else ""


def results_of(path: Path) -> list[EvalResult]:
    """What an evaluation found, by run and direction, as the hub's index takes it; nothing without its file."""
    if not path.exists():
        return []
    runs = json.loads(path.read_text("utf-8"))["runs"]
    return [
        EvalResult(
            task_type="text-generation",
            task_name="text style transfer",
            dataset_type="held-out",
            dataset_name=f"held-out rows, {direction}, {shown}",
            dataset_config=f"{direction}, {shown}",  # results of one data set and one config would be one entry
            metric_type=metric,
            metric_name=title,
            metric_value=round(numbers[metric]["value"], 4),
        )
        for run, shown in RUNS.items()
        for direction, numbers in runs.get(run, {}).items()
        for metric, title in INDEXED.items()
        if metric in numbers
    ]
