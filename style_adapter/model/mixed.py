"""PEFT's mixed batches: `adapter_names` chooses an adapter, or none, for each row."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from .._peft import AuxiliaryTrainingWrapper
from ..style import OFF, Codes, StyleBank, StyleCode
from .finding import find_adapted

BASE = "__base__"  # PEFT's name for a row that no adapter touches


@contextmanager
def mixed_batch(model: nn.Module, adapter_names: Sequence[str]) -> Iterator[None]:
    """Inside the block row i runs with `adapter_names[i]`, or with the frozen backbone where that is `__base__`.

    Each adapter named runs over the whole batch with a gate that is zero on the rows of others: no row is moved.

    Raises:
        ValueError: Training, merged layers, or an adapter that no layer has; in PEFT's own words.
    """
    found = find_adapted(model)
    layer = found.layers[0]
    if model.training:
        raise ValueError("Cannot pass `adapter_names` when the model is in training mode.")
    if any(adapted.merged for adapted in found.layers):
        raise ValueError(
            "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first."
        )
    names = list(adapter_names)
    context = layer.style_context
    named = list(dict.fromkeys(name for name in names if name != BASE))
    if unknown := sorted(set(named) - set(context.banks)):
        raise ValueError(f"Trying to infer with non-existing adapter(s): {', '.join(unknown)}")
    device = layer.adapter_device or torch.device("cpu")
    running = named or list(context.banks)[:1]  # where none is named, one of strength zero counts the rows
    codes = {a: _only_rows(context.code(a, device), [n == a for n in names]) for a in running}
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, AuxiliaryTrainingWrapper):
                stack.callback(module.register_forward_pre_hook(_pass_names(names), with_kwargs=True).remove)
        stack.enter_context(context.hold(codes, rows=names))
        yield


def _only_rows(code: StyleCode | None, kept: list[bool]) -> StyleCode | None:
    """`code` with one row for each of `kept`, of strength zero where it is False."""
    if code is None:
        return None
    mask = torch.tensor(kept, device=code.ids.device)
    if code.ids.shape[0] not in (1, len(kept)):
        raise ValueError(
            f"Length of `adapter_names` should be the same as the number of inputs, but got {len(kept)} and "
            f"{code.ids.shape[0]} respectively."
        )
    return replace(
        code,
        ids=code.ids.expand(len(kept), -1),
        weights=code.weights.expand(len(kept), -1),
        features=None if code.features is None else code.features * mask[:, None],
        noise=None if code.noise is None else code.noise * mask[:, None],
    ).weighted(mask[:, None].float())


def codes_of_rows(rows: Sequence[str], banks: Mapping[str, StyleBank], styles: Any, noise: Tensor | None) -> Codes:
    """The codes of `styles`, one a row or one for all, where row i belongs to the adapter `rows[i]`.

    Raises:
        ValueError: A style that the adapter of its row does not have, a wrong number of styles, or noise that none of
            the adapters takes.
    """
    named = [adapter for adapter in dict.fromkeys(rows) if adapter != BASE]
    if noise is not None and not any(banks[adapter].noise_dim for adapter in named):
        raise ValueError(
            f"style_noise: one of adapter_names={named} must have noise_dim >= 1; leave the noise out, or set "
            "noise_dim in StyleAdapterConfig"
        )
    codes: dict[str, StyleCode | None] = {}
    for adapter in named:
        kept = [name == adapter for name in rows]
        addressed = isinstance(styles, Mapping) and set(styles) <= set(banks)
        if addressed and adapter not in styles:
            continue
        own = styles[adapter] if addressed else styles
        if isinstance(own, StyleCode):
            codes[adapter] = _only_rows(own, kept)
            continue
        each = own.tolist() if isinstance(own, Tensor) else own
        listed = isinstance(each, Sequence) and not isinstance(each, str)
        each = list(each) if listed else [each] * len(rows)
        if len(each) != len(rows):
            raise ValueError(f"styles: {len(each)} styles for {len(rows)} rows; give one style for all or one a row")
        specs = [spec if keep else OFF for spec, keep in zip(each, kept, strict=True)]
        code = banks[adapter].code(specs, noise=noise if banks[adapter].noise_dim else None)
        codes[adapter] = code if code.noise is None else _masked_noise(code, kept)
    return codes


def _masked_noise(code: StyleCode, kept: list[bool]) -> StyleCode:
    """`code` without noise on the rows of others."""
    mask: Bool[Tensor, " rows"] = torch.tensor(kept)
    assert code.noise is not None
    return replace(code, noise=code.noise * mask.to(code.noise.device)[:, None])


def _pass_names(names: list[str]) -> Any:
    """A hook that tells a module of `modules_to_save` the adapter of each row, repeated as `generate` repeats rows."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        repeats = max(len(args[0]) // len(names), 1) if args else 1
        return args, {**kwargs, "adapter_names": [name for name in names for _ in range(repeats)]}

    return hook
