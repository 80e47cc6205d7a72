"""A training recipe: every option a field of a documented dataclass, from a YAML file, the command line, or both."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from peft import PeftConfig

from .arguments import StyleTrainingArguments
from .config import StyleAdapterConfig

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass
class ModelArguments:
    """Which backbone."""

    model_name_or_path: str = field(metadata={"help": "Hub id or folder of the backbone."})
    base_model_id: str | None = field(
        default=None, metadata={"help": "Hub id to record as the adapter's base where the backbone is a local folder."}
    )
    dtype: str = field(default="auto", metadata={"help": "Precision of the frozen weights: auto, bfloat16, float32."})
    load_in_4bit: bool = field(default=False, metadata={"help": "Load the backbone in 4 bits (bitsandbytes, nf4)."})


@dataclass
class DataArguments:
    """Which texts."""

    train_file: str = field(metadata={"help": "Training rows: a jsonl, json, csv or parquet file, or a hub data set."})
    eval_file: str | None = field(default=None, metadata={"help": "Evaluation rows, in the same form."})
    train_split: str = field(default="train", metadata={"help": "Split to train on, of a hub data set."})
    eval_split: str = field(default="validation", metadata={"help": "Split to evaluate on, of a hub data set."})


@dataclass(frozen=True)
class Recipe:
    """What one training run is made of."""

    model: ModelArguments
    data: DataArguments
    adapter: StyleAdapterConfig
    training: StyleTrainingArguments
    given: dict[str, Any]
    """The options as they were given, for the model card."""


SECTIONS: dict[str, type] = {
    "model": ModelArguments,
    "data": DataArguments,
    "adapter": StyleAdapterConfig,
    "training": StyleTrainingArguments,
}
_PEFT_OWN = {f.name for f in fields(PeftConfig)} - {"task_type"}  # filled in by PEFT, not by a recipe


def section_fields(cls: type) -> list[Any]:
    """The fields of one section that a recipe may set."""
    return [f for f in fields(cls) if f.init and f.name not in _PEFT_OWN]


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option a field, with the field's own help line; values are YAML."""
    for name, cls in SECTIONS.items():
        group = parser.add_argument_group(name, (cls.__doc__ or "").strip().splitlines()[0])
        for option in section_fields(cls):
            text = str(option.metadata.get("help", "")).replace("%", "%%")
            plain = option.type in (str, "str", str | None, "str | None")  # a prompt is no YAML
            group.add_argument(
                f"--{option.name}", type=str if plain else parse_value, default=argparse.SUPPRESS, help=text
            )


def parse_value(text: str) -> Any:
    """One YAML value; also 1e-3, which YAML 1.1 takes for a word.

    >>> parse_value("1e-3"), parse_value("[modern, kjv]"), parse_value("true")
    (0.001, ['modern', 'kjv'], True)
    """
    return _number(yaml.safe_load(text))


def _number(value: Any) -> Any:
    """`value`, or the number that YAML 1.1 took for a word."""
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def load_recipe(path: str | Path | None, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe in the YAML file `path`, if there is one, with `overrides` on top.

    Raises:
        ValueError: A key that no section has (the nearest one is named), or a required one that is missing.
        FileNotFoundError: No such file.
    """
    given = {} if path is None else yaml.safe_load(Path(path).read_text("utf-8")) or {}
    if not isinstance(given, dict):
        raise ValueError(f"{path} must hold `option: value` lines, found {type(given).__name__}")
    given = {key: _number(value) for key, value in {**given, **overrides}.items()}
    owners = {option.name: name for name, cls in SECTIONS.items() for option in section_fields(cls)}
    parts: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for key, value in given.items():
        if key not in owners:
            near = get_close_matches(key, owners, n=1)
            raise ValueError(f"{key!r} is no option{f'; did you mean {near[0]!r}?' if near else ''}")
        parts[owners[key]][key] = value
    for name, cls in SECTIONS.items():
        _require(cls, parts[name])
    adapter = {"target_modules": "all-linear", **parts["adapter"]}
    return Recipe(
        ModelArguments(**parts["model"]),
        DataArguments(**parts["data"]),
        StyleAdapterConfig(**adapter),
        StyleTrainingArguments(**parts["training"]),
        given,
    )


def _require(cls: type, given: Mapping[str, Any]) -> None:
    """Refuses a section that lacks a field without default."""
    required = [f.name for f in section_fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    missing: Sequence[str] = [name for name in required if name not in given]
    if missing:
        raise ValueError(f"{missing[0]!r} is missing and must be set; add it to the recipe or as --{missing[0]}")
