"""A training recipe: every option a field of a documented dataclass, from a YAML file, the command line, or both."""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from peft import PeftConfig

from .arguments import RoundOptions, StyleTrainingArguments
from .config import StyleAdapterConfig
from .presets import complete

TEACHERS = ("edits", "none")
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
    instruction: str | None = field(
        default=None,
        metadata={
            "help": "What a chat model is asked for, such as 'Rewrite: {source}'; where `prompt` is left out, its "
            "tokenizer's template makes the prompt of it."
        },
    )


@dataclass
class DataArguments:
    """Which texts."""

    train_file: str | None = field(
        default=None, metadata={"help": "Training rows: a jsonl, json, csv or parquet file, or a hub data set."}
    )
    unpaired: list[str] | dict[str, str] | None = field(
        default=None,
        metadata={
            "help": "In place of train_file two or more piles of text without counterparts, one text a line: a.txt "
            "b.txt.gz, or formal=a.txt casual=b.txt. A part is held out to evaluate on where eval_file is left out.",
            "several": True,
        },
    )
    max_train_rows: int | None = field(
        default=None, metadata={"help": "Most rows to train on, drawn by seed; all if left out."}
    )
    teacher: str = field(
        default="none",
        metadata={
            "help": "What makes pairs of texts without counterparts before training: edits, a search for rewrites by "
            "what the texts of the other style have in the same place, for styles that differ by their words; or "
            "none, the unpaired game."
        },
    )
    eval_file: str | None = field(default=None, metadata={"help": "Evaluation rows, in the same form."})
    train_split: str = field(default="train", metadata={"help": "Split to train on, of a hub data set."})
    eval_split: str = field(default="validation", metadata={"help": "Split to evaluate on, of a hub data set."})

    def __post_init__(self) -> None:
        """Refuses no texts, two sources of them, and none of their rows."""
        if self.train_file is None and self.unpaired is None:
            raise ValueError(
                "'train_file' is missing and must be set; add it to the recipe or as --train_file, or give piles of "
                "text as --unpaired"
            )
        if self.train_file is not None and self.unpaired is not None:
            raise ValueError(f"train_file={self.train_file!r} must be left out where unpaired names files; choose one")
        if self.teacher not in TEACHERS:
            raise ValueError(f"teacher={self.teacher!r} must be one of {', '.join(TEACHERS)}; 'edits' makes pairs")
        if self.max_train_rows is not None and self.max_train_rows < 1:
            raise ValueError(f"max_train_rows={self.max_train_rows} must be >= 1; leave it out to train on all rows")


@dataclass(frozen=True)
class Recipe:
    """What one training run is made of."""

    model: ModelArguments
    data: DataArguments
    adapter: StyleAdapterConfig
    training: StyleTrainingArguments
    rounds: RoundOptions
    given: dict[str, Any]
    """The options as they were given, for the model card."""

    def __post_init__(self) -> None:
        """Refuses rounds in which nothing tells the best draft, and a checkpoint that is of one of them."""
        count, checkpoint = self.rounds.rounds, self.training.resume_from_checkpoint
        if count and self.data.teacher == "none":
            raise ValueError(
                f"rounds={count} must be 0 where teacher='none': the teacher's score tells which draft is best; set "
                "teacher: edits, or make pairs by a score of your own with style_adapter.best_pairs"
            )
        if count and isinstance(checkpoint, str):
            raise ValueError(
                f"resume_from_checkpoint={checkpoint!r} must be true where rounds={count}: each stage goes on from the "
                "newest checkpoint in its own folder"
            )


SECTIONS: dict[str, type] = {
    "model": ModelArguments,
    "data": DataArguments,
    "adapter": StyleAdapterConfig,
    "training": StyleTrainingArguments,
    "rounds": RoundOptions,
}
_FILLED_IN = {f.name for f in fields(PeftConfig)} - {"task_type"} | {"format_version"}  # by PEFT or us, not by a recipe


def section_fields(cls: type) -> list[Any]:
    """The fields of one section that a recipe may set."""
    return [f for f in fields(cls) if f.init and f.name not in _FILLED_IN]


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option a field, with the field's own help line; values are YAML."""
    for name, cls in SECTIONS.items():
        group = parser.add_argument_group(name, (cls.__doc__ or "").strip().splitlines()[0])
        for option in section_fields(cls):
            text = (str(option.metadata.get("help", "")) + _default_of(option)).replace("%", "%%")
            several = option.metadata.get("several", False)
            plain = several or option.type in (str, "str", str | None, "str | None")  # a prompt is no YAML
            kind: dict[str, Any] = {"type": str if plain else parse_value, "nargs": "+" if several else None}
            group.add_argument(f"--{option.name}", default=argparse.SUPPRESS, help=text, **kind)


def _default_of(option: Any) -> str:
    """The end of a help line: the default, unless the line speaks of it or there is nothing to say."""
    silent = option.default in (None, MISSING, "") or "default" in option.metadata.get("help", "").lower()
    return "" if silent else f" (default: {json.dumps(option.default, default=str).strip(chr(34))})"


def parse_value(text: str) -> Any:
    """One YAML value; also 1e-3, which YAML 1.1 takes for a word.

    >>> parse_value("1e-3"), parse_value("[modern, kjv]"), parse_value("true")
    (0.001, ['modern', 'kjv'], True)
    """
    try:
        return _with_numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} must be YAML: {' '.join(str(error).split())}") from error


def _with_numbers(value: Any) -> Any:
    """`value` with the numbers that YAML 1.1 takes for words, at any depth."""
    if isinstance(value, dict):
        return {key: _with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def load_recipe(path: str | Path | None, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe in the YAML file `path`, if there is one, with `overrides` on top and its task's preset below.

    Raises:
        ValueError: A key that no section has (the nearest one is named), a value of a wrong type, or a required key
            that is missing.
        FileNotFoundError: No such file.
    """
    given = complete({**_read(path), **overrides})
    owners = {option.name: name for name, cls in SECTIONS.items() for option in section_fields(cls)}
    parts: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for key, value in given.items():
        if key not in owners:
            raise ValueError(no_option(key, owners))
        parts[owners[key]][key] = typed_value(SECTIONS[owners[key]], key, value)
    for name, cls in SECTIONS.items():
        _require(cls, parts[name])
    adapter = {"target_modules": "all-linear", **parts["adapter"]}
    return Recipe(
        ModelArguments(**parts["model"]),
        DataArguments(**parts["data"]),
        StyleAdapterConfig(**adapter),
        StyleTrainingArguments(**parts["training"]),
        RoundOptions(**parts["rounds"]),
        given,
    )


def _read(path: str | Path | None) -> dict[str, Any]:
    """The options in a YAML file; none without a file."""
    found = {} if path is None else parse_value(Path(path).read_text("utf-8")) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold `option: value` lines, found {type(found).__name__}")
    return found


def no_option(name: str, known: Iterable[str]) -> str:
    """The sentence for an option that does not exist, with the nearest one that does."""
    near = get_close_matches(str(name), known, n=1)
    return f"{name!r} is no option" + (f"; did you mean {near[0]!r}?" if near else "")


def typed_value(cls: type, name: str, value: Any) -> Any:
    """`value` as the field `name` of a section wants it: 1.0 for 1, "no" where YAML 1.1 reads False.

    Raises:
        ValueError: A value of another type.
    """
    hint = get_type_hints(cls)[name]
    kinds = set(_kinds(hint))
    if isinstance(value, bool) and bool not in kinds and any(issubclass(kind, Enum) for kind in kinds):
        return "yes" if value else "no"
    if type(value) is int and float in kinds and int not in kinds:
        return float(value)
    if type(value) is float and value.is_integer() and int in kinds and float not in kinds:
        return int(value)
    wanted = {list if kind is set else str if issubclass(kind, Enum) else kind for kind in kinds}
    if type(value) in wanted or not wanted <= {bool, int, float, str, list, dict, type(None)}:
        return value
    shown = hint if get_origin(hint) else getattr(hint, "__name__", hint)
    raise ValueError(f"{name}={value!r} must be {shown}; correct it in the recipe")


def _kinds(hint: Any) -> Iterator[type]:
    """The classes of a type hint, without what their containers hold."""
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    else:
        yield get_origin(hint) or (hint if isinstance(hint, type) else object)


def _require(cls: type, given: Mapping[str, Any]) -> None:
    """Refuses a section that lacks a field without default."""
    required = [f.name for f in section_fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    missing: Sequence[str] = [name for name in required if name not in given]
    if missing:
        raise ValueError(f"{missing[0]!r} is missing and must be set; add it to the recipe or as --{missing[0]}")
