"""Rows of `text`, `style` and maybe `prompt`: rows of transfer whose source is what the text begins from."""

import datasets


def as_transfer(dataset: datasets.Dataset) -> datasets.Dataset:
    """Columns `source` (the prompt, empty where there is none), `target` (the text) and `style`."""
    kept = dataset.select_columns(["text", "style"]).rename_column("text", "target")
    return kept.add_column("source", prompts_of(dataset))


def prompts_of(dataset: datasets.Dataset) -> list[str]:
    """The prompt of each row, empty where there is none."""
    given = dataset["prompt"] if "prompt" in dataset.column_names else [None] * len(dataset)
    return [prompt or "" for prompt in given]
