"""The ways into the inner model: its `forward` and `generate`, which also take `styles` and `style_noise`."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from ..style import StyleContext
from .checkpoint import carry_codes
from .styled import Noise, styled


class StyledCall:
    """The inner model's `forward` or `generate`, which also takes `styles` and `style_noise`.

    An instance attribute that shadows the class's method: every way into the model passes here, also those that
    go around the tuner. A plain object with plain attributes, so that deepcopy and pickle rebind it to the copy.
    """

    def __init__(self, model: nn.Module, name: str, context: StyleContext) -> None:
        """Around the method `name` of `model`, or what an instance has in its place."""
        self.model, self.name, self.context = model, name, context
        self.shadowed: Callable[..., Any] | None = model.__dict__.get(name)

    @property
    def __signature__(self) -> inspect.Signature:
        """The class's signature plus `styles`, so that Trainer keeps that column."""
        shown = inspect.signature(self.shadowed or MethodType(getattr(type(self.model), self.name), self.model))
        extra = inspect.Parameter("styles", inspect.Parameter.KEYWORD_ONLY, default=None)
        named = [p for p in shown.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        rest = [p for p in shown.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
        return shown.replace(parameters=[*named, extra, *rest])

    def _inner(self, *args: Any, **kwargs: Any) -> Any:
        """What the call does without styles."""
        if self.shadowed is not None:
            return self.shadowed(*args, **kwargs)
        return getattr(type(self.model), self.name)(self.model, *args, **kwargs)

    def __call__(self, *args: Any, styles: Any = None, style_noise: Noise | None = None, **kwargs: Any) -> Any:
        """Runs the model, in `styles` if they are given, in those in force otherwise."""
        if styles is None and style_noise is not None:
            raise ValueError("style_noise must come with styles; name the style it varies")
        chosen = nullcontext() if styles is None else styled(self.model, styles, noise=style_noise)
        with chosen:
            return self._run(*args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """One forward: what recomputes in backward takes the codes along."""
        if torch.is_grad_enabled() and self.model.training:
            carry_codes(self.model, self.context)
        return self._inner(*args, **kwargs)


class StyledGenerate(StyledCall):
    """`generate` repeats rows for beams and returned sequences: the codes are told the factor."""

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """`generate` with codes that know how often it repeats each row."""
        given = [a for a in (*args, kwargs.get("generation_config")) if isinstance(a, GenerationConfig)]
        own = getattr(self.model, "generation_config", None)
        settings = [kwargs, *(vars(config) for config in (*given, own) if config is not None)]  # as transformers looks
        names = ("num_beams", "num_return_sequences")
        counts = [next((s[name] for s in settings if s.get(name)), 1) for name in names]
        codes = self.context.in_force()
        repeated = {a: code and replace(code, repeats=max(counts)) for a, code in codes.items()}
        with self.context.hold(repeated):
            return self._inner(*args, **kwargs)


ENTRIES: dict[str, type[StyledCall]] = {"forward": StyledCall, "generate": StyledGenerate}


def install_entries(model: nn.Module, context: StyleContext) -> None:
    """Puts the styled `forward` and `generate` on `model`, once."""
    for name, entry in ENTRIES.items():
        if hasattr(model, name) and not isinstance(model.__dict__.get(name), StyledCall):
            setattr(model, name, entry(model, name, context))


def remove_entries(model: nn.Module) -> None:
    """Takes them away again."""
    for name in ENTRIES:
        entry = model.__dict__.get(name)
        if isinstance(entry, StyledCall):
            delattr(model, name)
            if entry.shadowed is not None:
                setattr(model, name, entry.shadowed)
