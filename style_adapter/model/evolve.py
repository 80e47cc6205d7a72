"""Checkpoints read by name: a file may know fewer styles than the model, or the same ones in another order.

A gate table has one row a style, and a row's number means nothing without the names. PEFT hands over tensors alone, so
the file's tensors carry one entry more, `style_adapter_format`: the bytes of {"format_version": 1, "styles": [...]}.
It stands where all other keys stand, below `base_model.model.` in a file: PEFT renames what it loads by that.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from peft import PeftConfig
from torch import Tensor

from .._peft import PREFIX
from ..config import FORMAT_VERSION, check_format_version

FORMAT_KEY = PREFIX + "format"
_GATE = re.compile(rf"(^|\.){PREFIX}gate\.")


def described(tensors: Mapping[str, Tensor], styles: Sequence[str]) -> dict[str, Tensor]:
    """`tensors`, and what must be known to read them again: the version of the format, the name of each gate's row."""
    text = json.dumps({"format_version": FORMAT_VERSION, "styles": list(styles)})
    root = "base_model.model." if any(key.startswith("base_model.model.") for key in tensors) else ""
    return {**tensors, root + FORMAT_KEY: torch.tensor(list(text.encode()), dtype=torch.uint8)}


def description(entry: UInt8[Tensor, " bytes"] | Float[Tensor, " bytes"]) -> dict[str, Any]:
    """What `described` wrote; also after a cast of the whole file: every byte is exact in 16 bits."""
    return json.loads(bytes(entry.to(torch.uint8).tolist()).decode())


def described_in(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entry that `described` made, by its key; empty where the file has none."""
    return {key: tensor for key, tensor in tensors.items() if key.rpartition(".")[2] == FORMAT_KEY}


def check_read_by_number(config: Any, given: Mapping[str, Any]) -> None:
    """Refuses what transformers' `load_adapter` would read by number into rows of other styles.

    Args:
        config: The config that the caller gave.
        given: All that the caller gave, by the names of the arguments.

    Raises:
        ValueError: Its styles are others than those of the file, or in another order.
    """
    tensors = given.get("adapter_state_dict")
    if tensors is None:
        options = {**given.get("kwargs", {}), **(given.get("adapter_kwargs") or {})}
        where = {name: options[name] for name in ("subfolder", "revision", "cache_dir", "token") if name in options}
        known = getattr(PeftConfig.from_pretrained(given["peft_model_id"], **where), "styles", config.styles)
    else:
        entries = described_in(tensors)
        known = description(next(iter(entries.values())))["styles"] if entries else config.styles
    if list(known) != list(config.styles):
        raise ValueError(
            f"styles={config.styles} must be those of the file in their order, {list(known)}: transformers reads rows "
            "by number; leave peft_config out, or load it by PeftModel.from_pretrained(..., config=...), which finds "
            "rows by name"
        )


def evolved(tensors: Mapping[str, Tensor], styles: Sequence[str], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's `tensors` as a model of `styles` reads them: each gate's row found by its style's name.

    A style that the file does not know keeps the row it has in the model, so that an adapter can be given styles
    beside those it was saved with. A file without a description is read as it stands.

    Args:
        tensors: Tensors of the file, under the model's keys.
        styles: Names of the model's styles, in the order of their rows.
        start: The model's own tensors, for the rows that the file does not have.

    Raises:
        ValueError: A newer format, a style or a tensor of the file that the model has not, or another number of rows
            than names.
    """
    entries = described_in(tensors)
    found = {key: tensor for key, tensor in tensors.items() if key not in entries}
    about = description(next(iter(entries.values()))) if entries else {}
    check_format_version(about.get("format_version", FORMAT_VERSION), "the weights' file")
    known = list(about.get("styles", styles))
    lost = [name for name in known if name not in set(styles)]
    if lost:
        raise ValueError(
            f"styles={list(styles)} must hold every style of the file, and {lost} would be lost; add them to styles in "
            "StyleAdapterConfig, or load the file without a config of your own"
        )
    _check_kept(found, start)
    number = {name: row for row, name in enumerate(known)}
    rows = torch.tensor([number.get(name, -1) for name in styles])
    for key, table in found.items():
        if _GATE.search(key):
            _check_rows(key, table, known, named=bool(entries))
            if known != list(styles):
                found[key] = gate_by_name(table, rows, start.get(key))
    return found


def gate_by_name(
    table: Float[Tensor, "known r"], rows: Int[Tensor, " styles"], start: Float[Tensor, "styles r"] | None
) -> Float[Tensor, "styles r"]:
    """G'[i] = G[rows[i]] where the file knows style i (rows[i] >= 0), start[i] where it does not.

    Without values to start from (none, or on the meta device) a new row is 1, as a new adapter's gates are.
    """
    new = start if start is not None and not start.is_meta else torch.ones(len(rows), table.shape[1])
    old = table[rows.clamp(min=0).to(table.device)]
    return torch.where((rows >= 0).to(table.device)[:, None], old, new.to(table.device, table.dtype))


def _check_kept(found: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> None:
    """Refuses a file with adapter tensors that the model has no place for: PEFT would drop them without a word."""
    lost = [key for key in found if PREFIX in key and key not in start]
    if lost:
        raise ValueError(
            f"{lost[0]}: the model must have a place for each of the file's tensors, and for {len(lost)} it has none; "
            "compare target_modules, style_dim and noise_dim with those of the file's own config"
        )


def _check_rows(key: str, table: Tensor, known: Sequence[str], *, named: bool) -> None:
    """Refuses a gate table whose rows cannot be named."""
    if table.shape[0] == len(known):
        return
    whose = "the styles that its file names" if named else "the model's styles, for its file names none"
    raise ValueError(
        f"{key}: {table.shape[0]} rows must be {len(known)}, one for each of {whose}: {list(known)}; load the file "
        "without a config of your own" + ("" if named else ", and save it once: files name their styles since then")
    )
