"""`styled` and `styles_of`: for any module that holds adapted layers, also where PEFT drops the tuner."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..layers import StyleLayer
from ..style import OFF, Codes, Style, StyleBank, StyleCode, StyleContext, layer_strengths, names_any
from .checkpoint import carry_codes
from .finding import find_adapted
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
    banks = list(dict.fromkeys(context.banks[adapter] for context, adapter in _active(find_adapted(model).first)))
    if len(banks) == 1:
        return banks[0]
    names = tuple(dict.fromkeys(name for bank in banks for name in bank.names))
    width = max((bank.style_dim for bank in banks), default=0)
    return StyleBank(names, style_dim=width, noise_dim=max((bank.noise_dim for bank in banks), default=0))


def _active(layers: Mapping[StyleContext, StyleLayer]) -> list[tuple[StyleContext, str]]:
    """Each context with each of its active adapters."""
    return [(context, a) for context, layer in layers.items() for a in layer.active_adapters if a in context.banks]


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
    found = find_adapted(model)
    if found.merged:
        raise ValueError(
            "styles: a merged model has the style it was merged in; call unmerge_adapter() to choose another"
        )
    layers = found.first
    if torch.is_grad_enabled():
        carry_codes(model)
    tiles = type(model).__module__.startswith("diffusers.") if tiled is None else tiled
    with torch.inference_mode(False):  # a compiled graph takes tensors of one kind
        resolved = _resolve(layers, styles, noise)
        factors = _strengths(found.layers, resolved, strength)
        held = {
            context: {
                a: code and _told(code, layers[context], tiles, factors.get(context)) for a, code in codes.items()
            }
            for context, codes in resolved.items()
        }
    with ExitStack() as stack:
        for context, codes in held.items():
            stack.enter_context(context.hold(codes))
        yield


def _told(code: StyleCode, layer: StyleLayer, tiled: bool, strength: Float[Tensor, " layers"] | None) -> StyleCode:
    """`code` with what `styled` was told beside the styles, on the device of `layer`: moved once, not once a layer."""
    if code.strength is not None:
        strength = code.strength if strength is None else strength.to(code.strength) * code.strength
    told = code if strength is None and not tiled else replace(code, tiled=tiled or code.tiled, strength=strength)
    device = layer.adapter_device
    return told if device is None or device.type == "meta" else told.to(device)


def _strengths(
    adapted: Iterable[StyleLayer], resolved: Mapping[StyleContext, Codes], strength: Strength
) -> dict[StyleContext, Float[Tensor, " layers"]]:
    """The factors of each context's layers; empty where there is nothing to change.

    Raises:
        ValueError: A pattern that names no layer of the adapters that are addressed.
    """
    if not isinstance(strength, Mapping):
        return {} if strength == 1.0 else {c: layer_strengths(c.layers, strength) for c in resolved}
    reached = [layer.key for layer in adapted if any(a in layer.r for a in resolved.get(layer.style_context, ()))]
    layer_strengths(reached, strength)
    return {
        context: layer_strengths(context.layers, {p: f for p, f in strength.items() if names_any(p, context.layers)})
        for context in resolved
    }


def _resolve(layers: Mapping[StyleContext, StyleLayer], styles: Any, noise: Noise | None) -> dict[StyleContext, Codes]:
    """The code of each adapter that `styles` addresses, by context; the others stay as they are."""
    if isinstance(styles, Style) and styles == OFF:
        return {context: dict.fromkeys(context.banks) for context in layers}
    if mixed := {context: rows for context in layers if (rows := context.in_force().rows)}:
        return {context: codes_of_rows(rows, context.banks, styles, noise) for context, rows in mixed.items()}
    known = {adapter: bank for context in layers for adapter, bank in context.banks.items()}
    if isinstance(styles, Mapping) and styles and all(_names_adapter(k, v, known) for k, v in styles.items()):
        return {context: _addressed(context.banks, styles, noise) for context in layers}
    active = _active(layers)
    if len(active) == len(layers) and len({context.banks[adapter] for context, adapter in active}) == 1:
        return {context: {adapter: context.banks[adapter].code(styles, noise=noise)} for context, adapter in active}
    return _resolve_among(active, styles, noise)


def _addressed(banks: Mapping[str, StyleBank], styles: Mapping[str, Any], noise: Noise | None) -> Codes:
    """The codes of {adapter: styles}."""
    own = {adapter: spec for adapter, spec in styles.items() if adapter in banks}
    return {
        a: banks[a].code(spec, noise=noise if len(styles) == 1 or banks[a].noise_dim else None)
        for a, spec in own.items()
    }


def _names_adapter(key: Any, value: Any, banks: Mapping[str, StyleBank]) -> bool:
    """Whether {key: value} is {adapter: styles} and not {style: weight}."""
    return key in banks and not isinstance(value, (int, float))


def _resolve_among(
    active: list[tuple[StyleContext, str]], styles: Any, noise: Noise | None
) -> dict[StyleContext, Codes]:
    """Each of several active adapters takes the part of each style whose names it has, or its default."""
    banks = [context.banks[adapter] for context, adapter in active]
    union = StyleBank(
        tuple(dict.fromkeys(name for bank in banks for name in bank.names)),
        style_dim=max((bank.style_dim for bank in banks), default=0),
    )
    specs = styles if isinstance(styles, (list, tuple)) else [styles]
    numbered = any(isinstance(spec, (int, Tensor, StyleCode)) for spec in specs)
    rows = [] if numbered else union.rows(styles)
    if numbered or noise is not None or any(row.features is not None for row in rows):
        raise ValueError(
            f"styles={styles!r}: row numbers, features and noise must address one adapter, {len(active)} are active; "
            "write {adapter: styles}"
        )
    codes: dict[StyleContext, dict[str, StyleCode | None]] = {}
    for context, adapter in active:
        bank = context.banks[adapter]
        parts = [Style({n: w for n, w in row.weights.items() if n in bank.names}) for row in rows]
        default = bank[bank.usual]
        chosen = [part if part.weights or row == OFF else default for part, row in zip(parts, rows, strict=True)]
        codes.setdefault(context, {})[adapter] = bank.code(chosen)
    return dict(codes)
