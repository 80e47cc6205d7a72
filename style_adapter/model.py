"""The tuner: injects the layers, opens the style context around the inner model's `forward` and `generate`."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftConfig
from torch import Tensor, nn
from transformers import GenerationConfig

from ._peft import DEFAULT_TARGETS, PREFIX, BaseTuner, get_pattern_key, get_quantization_kwargs
from .config import StyleAdapterConfig
from .layers import StyleLayer, keep_unpacked, layer_class
from .style import OFF, Codes, Style, StyleBank, StyleCode, StyleContext

Noise = Float[Tensor, "rows_noise noise_dim"]


def _layers(model: nn.Module) -> Iterator[StyleLayer]:
    """The adapted layers of `model`, in module order."""
    return (module for module in model.modules() if isinstance(module, StyleLayer))


def _first_layer(model: nn.Module) -> StyleLayer:
    """Any adapted layer: all share one context and one list of active adapters."""
    layer = next(_layers(model), None)
    if layer is None:
        raise ValueError(f"model={type(model).__name__} must have a style adapter; add one with get_peft_model")
    return layer


def styles_of(model: nn.Module) -> StyleBank:
    """The bank of `model`'s active adapter; of several active ones, the union of their names.

    Works on any module that holds adapted layers, also where PEFT drops the tuner (`inject_adapter_in_model`,
    transformers' and diffusers' `add_adapter`).

    Raises:
        ValueError: The model has no style adapter.
    """
    layer = _first_layer(model)
    banks = [layer.style_context.banks[a] for a in layer.active_adapters if a in layer.style_context.banks]
    if len(banks) == 1:
        return banks[0]
    names = tuple(dict.fromkeys(name for bank in banks for name in bank.names))
    width = max((bank.style_dim for bank in banks), default=0)
    return StyleBank(names, style_dim=width, noise_dim=max((bank.noise_dim for bank in banks), default=0))


@contextmanager
def styled(model: nn.Module, styles: Any, *, noise: Noise | None = None) -> Iterator[None]:
    """Inside the block `model` runs in the given style; before and after, and in other threads, as it was.

    Args:
        model: Any module with style adapters.
        styles: A name, a `Style`, a row number, a mixture {name: weight}; a list of these or a LongTensor [batch]
            for one a row; {adapter: styles} where several adapters are active; `OFF` for the frozen backbone.
        noise: z [rows, noise_dim], zero if left out; see `StyleBank.sample_noise`.

    Raises:
        ValueError: A name that no active adapter has (the message lists the known ones), or shapes that do not fit.
    """
    context = _first_layer(model).style_context
    _carry_codes(model, context)
    codes = _resolve(model, styles, noise)
    device = _first_layer(model).adapter_device
    if device is not None and device.type != "meta":  # moved once here, not once a layer
        codes = {adapter: code and code.to(device) for adapter, code in codes.items()}
    with context.hold(codes):
        yield


def _resolve(model: nn.Module, styles: Any, noise: Noise | None) -> Codes:
    """The code of each adapter that `styles` addresses; the others stay as they are."""
    layer = _first_layer(model)
    banks = layer.style_context.banks
    if isinstance(styles, Style) and styles == OFF:
        return dict.fromkeys(banks)
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


@contextmanager
def head_reads(model: nn.Module, choose: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block the head over the vocabulary reads `choose(hidden)` instead of hidden [batch, seq, dim].

    `Tensor.contiguous` alone is worth it: in bf16 on the CPU a strided slice takes a batched product with one copy of
    the weight a row, 72 % of a generation's time and 40 % of a training step's. Choosing positions saves the rest.
    """
    head = getattr(model, "get_base_model", lambda: model)().get_output_embeddings()
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(lambda module, args: (choose(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


class _StyledCall:
    """The inner model's `forward` or `generate`, which also takes `styles` and `style_noise`.

    An instance attribute that shadows the class's method: every way into the model passes here, also those that
    go around the tuner. A plain object with plain attributes, so that deepcopy and pickle rebind it to the copy.
    """

    def __init__(self, model: nn.Module, name: str, context: StyleContext) -> None:
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
            _carry_codes(self.model, self.context)
        return self._inner(*args, **kwargs)


class _StyledGenerate(_StyledCall):
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


ENTRIES: dict[str, type[_StyledCall]] = {"forward": _StyledCall, "generate": _StyledGenerate}


def _install_entries(model: nn.Module, context: StyleContext) -> None:
    """Puts the styled `forward` and `generate` on `model`, once."""
    for name, entry in ENTRIES.items():
        if hasattr(model, name) and not isinstance(model.__dict__.get(name), _StyledCall):
            setattr(model, name, entry(model, name, context))


def _remove_entries(model: nn.Module) -> None:
    """Takes them away again."""
    for name in ENTRIES:
        entry = model.__dict__.get(name)
        if isinstance(entry, _StyledCall):
            delattr(model, name)
            if entry.shadowed is not None:
                setattr(model, name, entry.shadowed)
    for module in model.modules():
        function = module.__dict__.get("_gradient_checkpointing_func")
        if isinstance(function, _CarriedCheckpoint):
            module.__dict__["_gradient_checkpointing_func"] = function.checkpoint


class _CarriedCheckpoint:
    """A checkpointing function whose recomputation sees the codes of the forward, not those of the backward."""

    def __init__(self, checkpoint: Callable[..., Any], context: StyleContext) -> None:
        self.checkpoint, self.context = checkpoint, context

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Checkpoints `function` together with the codes now in force."""
        codes = self.context.in_force()

        def recomputable(*inner_args: Any, **inner_kwargs: Any) -> Any:
            with self.context.only(codes):
                return function(*inner_args, **inner_kwargs)

        return self.checkpoint(recomputable, *args, **kwargs)


def _carry_codes(model: nn.Module, context: StyleContext) -> None:
    """Wraps each block's checkpointing function; at each forward, since Trainer sets it anew inside `train()`."""
    for module in model.modules():
        function = module.__dict__.get("_gradient_checkpointing_func")
        if function is not None and not isinstance(function, _CarriedCheckpoint):
            module.__dict__["_gradient_checkpointing_func"] = _CarriedCheckpoint(function, context)


class StyleAdapterModel(BaseTuner):
    """Injects style-conditioned low-rank layers into a frozen model; what `get_peft_model` puts around it.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from peft import get_peft_model
        >>> import style_adapter
        >>> tiny = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        ...                    num_key_value_heads=1, vocab_size=16)
        >>> config = style_adapter.StyleAdapterConfig(styles=["modern", "kjv"], r=2, task_type="CAUSAL_LM")
        >>> model = get_peft_model(LlamaForCausalLM(tiny), config)
        >>> list(model.styles)
        ['modern', 'kjv']
    """

    prefix: str = PREFIX
    tuner_layer_cls = StyleLayer  # type: ignore[assignment]  # PEFT types it as type[BaseTunerLayer]
    target_module_mapping = DEFAULT_TARGETS

    @property
    def styles(self) -> StyleBank:
        """The bank of the active adapter: names -> `Style`."""
        return styles_of(self.model)

    def styled(self, styles: Any, *, noise: Noise | None = None) -> Any:
        """Context manager: inside the block the model runs in `styles`; see `style_adapter.styled`."""
        return styled(self.model, styles, noise=noise)

    def _context(self) -> StyleContext:
        """The context that all adapted layers share; a new one before the first layer."""
        layer = next(_layers(self.model), None)
        if layer is not None:
            return layer.style_context
        if "_new_context" not in self.__dict__:
            self.__dict__["_new_context"] = StyleContext()
        return self.__dict__["_new_context"]

    def _create_and_replace(  # type: ignore[override]  # PEFT hands each tuner its own kind of config
        self,
        peft_config: StyleAdapterConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        """Adapts one matched module."""
        context = self._context()
        context.banks[adapter_name] = _bank(peft_config)
        ranks, alphas = peft_config.rank_pattern, peft_config.alpha_pattern
        r = ranks.get(get_pattern_key(list(ranks), current_key), peft_config.r)
        alpha = alphas.get(get_pattern_key(list(alphas), current_key), peft_config.alpha)
        if isinstance(target, StyleLayer):
            target.update_layer(adapter_name, peft_config, r=r, alpha=alpha, inference_mode=peft_config.inference_mode)
            return
        kwargs = get_quantization_kwargs(self.model)
        cls = layer_class(target, **kwargs)
        new_module = cls(target, adapter_name, peft_config, context=context, r=r, alpha=alpha, **kwargs)
        if adapter_name not in self.active_adapters:
            new_module.requires_grad_(False)  # a further adapter trains once it is made active
        self._replace_module(parent, target_name, new_module, target)

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        """What must hold before the first layer is adapted."""
        if not peft_config.inference_mode:
            keep_unpacked(model)

    def _check_merge_allowed(self) -> None:
        """Refuses before the first layer is merged what a later one could not do."""
        super()._check_merge_allowed()
        for layer in _layers(self.model):
            layer.check_mergeable()

    def _post_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        """Opens the ways in."""
        _install_entries(model, self._context())

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> Any:
        """PEFT's unloading, and the ways in closed again: what is left is the plain model."""
        model = super()._unload_and_optionally_merge(*args, **kwargs)
        _remove_entries(self.model)
        return model

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Refuses what PEFT would otherwise drop silently."""
        if kwargs.get("adapter_names") is not None:
            raise ValueError(
                "adapter_names must be None for style adapters; pass one style a row instead: model(..., styles=[...])"
            )
        yield


def _bank(config: StyleAdapterConfig) -> StyleBank:
    """The bank that `config` describes."""
    return StyleBank(
        tuple(config.styles),
        default=config.default_style,
        style_dim=config.style_dim,
        noise_dim=config.noise_dim,
        noise_type=config.noise_type,
    )
