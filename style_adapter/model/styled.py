"""`styled` and `styles_of`: for any module that holds adapted layers, also where PEFT drops the tuner."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..style import OFF, Codes, Style, StyleBank, StyleCode, layer_strengths
from .checkpoint import carry_codes
from .finding import first_layer
from .mixed import codes_of_rows

Strength = float | int | Mapping[str, float | int]
Noise = Float[Tensor, "... noise_dim"]  # [rows, noise_dim], which the bank checks


def styles_of(model: nn.Module) -> StyleBank:
    """The bank of `model`'s active adapter; of several active ones, the union of their names.

    Works on any module that holds adapted layers, also where PEFT drops the tuner (`inject_adapter_in_model`,
    transformers' and diffusers' `add_adapter`).

    Raises:
        ValueError: The model has no style adapter.
    """
    layer = first_layer(model)
    banks = [layer.style_context.banks[a] for a in layer.active_adapters if a in layer.style_context.banks]
    if len(banks) == 1:
        return banks[0]
    names = tuple(dict.fromkeys(name for bank in banks for name in bank.names))
    width = max((bank.style_dim for bank in banks), default=0)
    return StyleBank(names, style_dim=width, noise_dim=max((bank.noise_dim for bank in banks), default=0))


@contextmanager
def styled(
    model: nn.Module,
    styles: Any,
    *,
    noise: Noise | None = None,
    strength: Strength = 1.0,
    tiled: bool | None = None,
) -> Iterator[None]:
    """Inside the block `model` runs in the given style; before and after, and in other threads, as it was.

    Args:
        model: Any module with style adapters.
        styles: A name, a `Style`, a row number, a mixture {name: weight}; a list of these or a LongTensor [batch]
            for one a row; {adapter: styles} where several adapters are active; `OFF` for the frozen backbone.
        noise: z [rows, noise_dim], zero if left out; see `StyleBank.sample_noise`.
        strength: A factor on the style, one for all layers or by block: {"layers.0-11": 0.5}; see `layer_strengths`.
        tiled: Whether the model's batch may hold all rows several times, one block after another: what diffusers'
            classifier-free guidance makes of them, and the default for its models.

    Raises:
        ValueError: A merged model, a name that no active adapter has (the message lists the known ones), or shapes
            that do not fit.
    """
    layer = first_layer(model)
    if layer.merged:
        raise ValueError(
            "styles: a merged model has the style it was merged in; call unmerge_adapter() to choose another"
        )
    context = layer.style_context
    if torch.is_grad_enabled():
        carry_codes(model, context)
    device = layer.adapter_device
    with torch.inference_mode(False):  # a compiled graph takes tensors of one kind
        codes = _resolve(model, styles, noise)
        told: dict[str, Any] = {
            "tiled": type(model).__module__.startswith("diffusers.") if tiled is None else tiled,
            "strength": None if strength == 1.0 else layer_strengths(context.layers, strength),
        }
        codes = {adapter: code and replace(code, **told) for adapter, code in codes.items()}
        if device is not None and device.type != "meta":  # moved once here, not once a layer
            codes = {adapter: code and code.to(device) for adapter, code in codes.items()}
    with context.hold(codes):
        yield


def _resolve(model: nn.Module, styles: Any, noise: Noise | None) -> Codes:
    """The code of each adapter that `styles` addresses; the others stay as they are."""
    layer = first_layer(model)
    banks = layer.style_context.banks
    if isinstance(styles, Style) and styles == OFF:
        return dict.fromkeys(banks)
    if rows := layer.style_context.in_force().rows:
        return codes_of_rows(rows, banks, styles, noise)
    if isinstance(styles, Mapping) and styles and all(_names_adapter(k, v, banks) for k, v in styles.items()):
        alone = len(styles) == 1
        return {a: banks[a].code(s, noise=noise if alone or banks[a].noise_dim else None) for a, s in styles.items()}
    active = [adapter for adapter in layer.active_adapters if adapter in banks]
    if len(active) == 1:
        return {active[0]: banks[active[0]].code(styles, noise=noise)}
    return _resolve_among(active, banks, styles_of(model), styles, noise)


def _names_adapter(key: Any, value: Any, banks: Mapping[str, StyleBank]) -> bool:
    """Whether {key: value} is {adapter: styles} and not {style: weight}."""
    return key in banks and not isinstance(value, (int, float))


def _resolve_among(
    active: list[str], banks: Mapping[str, StyleBank], union: StyleBank, styles: Any, noise: Noise | None
) -> Codes:
    """Each of several active adapters takes the part of each style whose names it has, or its default."""
    specs = styles if isinstance(styles, (list, tuple)) else [styles]
    numbered = any(isinstance(spec, (int, Tensor, StyleCode)) for spec in specs)
    rows = [] if numbered else union.rows(styles)
    if numbered or noise is not None or any(row.features is not None for row in rows):
        raise ValueError(
            f"styles={styles!r}: row numbers, features and noise must address one adapter, {len(active)} are active; "
            "write {adapter: styles}"
        )
    codes: dict[str, StyleCode | None] = {}
    for adapter in active:
        bank = banks[adapter]
        parts = [Style({n: w for n, w in row.weights.items() if n in bank.names}) for row in rows]
        default = bank[bank.default or bank.names[0]]
        chosen = [part if part.weights or row == OFF else default for part, row in zip(parts, rows, strict=True)]
        codes[adapter] = bank.code(chosen)
    return codes
