"""The ways into the inner model: its `forward` and `generate`, which also take `styles` and `style_noise`."""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from types import CodeType, MethodType
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from ..style import StyleContext
from .checkpoint import carry_codes
from .styled import Noise, Strength, styled


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

    @property
    def __code__(self) -> CodeType:
        """The code of the class's method: torch.export notes where a forward is written."""
        return inspect.unwrap(getattr(type(self.model), self.name)).__code__

    def _inner(self, *args: Any, **kwargs: Any) -> Any:
        """What the call does without styles."""
        if self.shadowed is not None:
            return self.shadowed(*args, **kwargs)
        return getattr(type(self.model), self.name)(self.model, *args, **kwargs)

    def __call__(
        self,
        *args: Any,
        styles: Any = None,
        style_noise: Noise | None = None,
        style_strength: Strength = 1.0,
        **kwargs: Any,
    ) -> Any:
        """Runs the model, in `styles` if they are given, in those in force otherwise."""
        if styles is None and style_noise is None and style_strength == 1.0:
            return self._run(*args, **kwargs)
        return self._run_styled(styles, style_noise, style_strength, *args, **kwargs)

    @torch.compiler.disable(recursive=False)  # names become tensors in Python; what it calls compiles again
    def _run_styled(self, styles: Any, noise: Noise | None, strength: Strength, *args: Any, **kwargs: Any) -> Any:
        """Runs the model in `styles`."""
        if styles is None:
            raise ValueError("style_noise and style_strength must come with styles; name the style they vary")
        chosen = styled(self.model, styles, noise=noise, strength=strength)
        with chosen:
            return self._run(*args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """One forward: what recomputes in backward takes the codes along."""
        if torch.is_grad_enabled() and self.model.training:
            self._carry()
        rows = set() if torch.compiler.is_compiling() else self.context.row_counts()
        if not rows:
            return self._inner(*args, **kwargs)
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.dim() > 1]
        with self.context.called_with([tensor.shape for tensor in tensors if tensor.shape[0] in rows]):
            return self._inner(*args, **kwargs)

    @torch.compiler.assume_constant_result  # a compiled forward does this while it is compiled
    def _carry(self) -> None:
        """Wraps the checkpointing functions."""
        carry_codes(self.model, self.context)


class StyledGenerate(StyledCall):
    """`generate` repeats rows for beams and returned sequences: the codes are told the factor."""

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """`generate` with codes that know how often it repeats each row."""
        given = [a for a in (*args, kwargs.get("generation_config")) if isinstance(a, GenerationConfig)]
        own = getattr(self.model, "generation_config", None)
        settings = [kwargs, *(vars(config) for config in (*given, own) if config is not None)]  # as transformers looks
        names = ("num_beams", "num_return_sequences")
        counts = [next((s[name] for s in settings if s.get(name)), 1) for name in names]
        codes = self.context.in_force().codes
        repeats = (*counts, math.prod(counts))  # Whisper repeats for both, the others for the larger one
        repeated = {a: code and replace(code, repeats=repeats) for a, code in codes.items()}
        with self.context.hold(repeated):
            return super()._run(*args, **kwargs)


ENTRIES: dict[str, type[StyledCall]] = {"forward": StyledCall, "generate": StyledGenerate}


def _ways_in(model: nn.Module) -> list[nn.Module]:
    """The model, and transformers' backbone inside it: TRL's fused head calls that one directly."""
    inner = getattr(model, "base_model", model)
    return [model, inner] if isinstance(inner, nn.Module) and inner is not model else [model]


def install_entries(model: nn.Module, context: StyleContext) -> None:
    """Puts the styled `forward` and `generate` on `model` and on the backbone inside it, once."""
    for module in _ways_in(model):
        for name, entry in ENTRIES.items():
            if hasattr(module, name) and not isinstance(module.__dict__.get(name), StyledCall):
                setattr(module, name, entry(module, name, context))


def remove_entries(model: nn.Module) -> None:
    """Takes them away again."""
    for module in _ways_in(model):
        for name in ENTRIES:
            entry = module.__dict__.get(name)
            if isinstance(entry, StyledCall):
                delattr(module, name)
                if entry.shadowed is not None:
                    setattr(module, name, entry.shadowed)
