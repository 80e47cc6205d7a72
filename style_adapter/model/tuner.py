"""The tuner: injects the adapted layers and opens the ways into the inner model."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from peft import PeftConfig
from torch import Tensor, nn

from .._peft import DEFAULT_TARGETS, PREFIX, BaseTuner, get_pattern_key, get_quantization_kwargs
from ..config import StyleAdapterConfig
from ..layers import (
    ParamWrapper,
    StyleEmbedding,
    StyleLayer,
    fuse_again,
    keep_unfused,
    keep_unpacked,
    layer_class,
)
from ..style import StyleBank, StyleContext
from .checkpoint import drop_codes
from .entries import install_entries, remove_entries
from .evolve import check_read_by_number, described, evolved
from .finding import adapted_layers
from .mixed import mixed_batch
from .parameters import check_parameters, warn_of_stacked_experts
from .styled import Noise, Strength, styled, styles_of
from .trainable import (
    check_called,
    check_stacks,
    in_top_blocks,
    is_tied,
    pause_backbone,
    reads_tokens,
    restored,
    save_head,
    set_trainable,
    spare_head,
    with_backbone,
)

MAMBA_TYPES = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")


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
    tuner_layer_cls = StyleLayer
    target_module_mapping = DEFAULT_TARGETS
    check_loading = staticmethod(check_read_by_number)
    _paused: Sequence[nn.Parameter] = ()  # of a backbone that trains with an adapter which is not active

    @property
    def styles(self) -> StyleBank:
        """The bank of the active adapter: names -> `Style`."""
        return styles_of(self.model)

    def styled(
        self, styles: Any, *, noise: Noise | None = None, strength: Strength = 1.0, tiled: bool | None = None
    ) -> Any:
        """Context manager: inside the block the model runs in `styles`; see `style_adapter.styled`."""
        return styled(self.model, styles, noise=noise, strength=strength, tiled=tiled)

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """LoRA's way to mix adapters, which a style adapter does without a further adapter.

        Raises:
            ValueError: Always; the message names the exact ways.
        """
        raise ValueError(
            "add_weighted_adapter must be called on LoRAs; styles mix exactly at any moment, "
            "model.styled({'kjv': 0.7, 'modern': 0.3}), several active adapters add up, set_adapter([...]), and "
            "from_loras takes LoRAs in as styles"
        )

    def _context(self) -> StyleContext:
        """The context that all adapted layers share; a new one before the first layer."""
        layer = next(adapted_layers(self.model), None)
        if layer is not None:
            return layer.style_context
        if "_new_context" not in self.__dict__:
            self.__dict__["_new_context"] = StyleContext()
        return self.__dict__["_new_context"]

    def _create_and_replace(  # type: ignore[override]  # noqa: PLR0917 - PEFT's signature, with our own config
        self,
        peft_config: StyleAdapterConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        """Adapts one matched module, or its parameter `parameter_name`."""
        if parameter_name and not in_top_blocks(self.model, current_key, peft_config.trainable):
            return
        context = self._context()
        context.add_bank(adapter_name, bank_of(peft_config))
        ranks, alphas = peft_config.rank_pattern, peft_config.alpha_pattern
        r = ranks.get(get_pattern_key(list(ranks), current_key), peft_config.r)
        alpha = alphas.get(get_pattern_key(list(alphas), current_key), peft_config.alpha)
        if isinstance(target, StyleLayer) and getattr(target, "parameter_name", None) == parameter_name:
            target.update_layer(adapter_name, peft_config, r=r, alpha=alpha, inference_mode=peft_config.inference_mode)
            return
        if isinstance(target, ParamWrapper) and parameter_name is None:
            raise ValueError(
                f"target_modules matched {current_key}, which must not be adapted: {current_key} has an adapter on its "
                f"parameter {target.parameter_name}; name it in target_parameters, as the other adapter does"
            )
        check_called(self.model, target, current_key)
        kwargs = get_quantization_kwargs(self.model)
        cls = ParamWrapper if parameter_name else layer_class(target, current_key, **kwargs)
        named = {"parameter_name": parameter_name} if parameter_name else {}
        new_module = cls(
            target, adapter_name, peft_config, context=context, key=current_key, r=r, alpha=alpha, **named, **kwargs
        )
        new_module.unties = is_tied(self.model, target)
        if isinstance(new_module, StyleEmbedding):
            new_module.shared = not reads_tokens(self.model, target, current_key)
        if adapter_name not in self.active_adapters:
            new_module.requires_grad_(False)  # a further adapter trains once it is made active
        self._replace_module(parent, target_name, new_module, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """PEFT's replacing; what is unloaded is the base layer itself, which needs nothing handed over."""
        if isinstance(new_module, StyleLayer):
            super()._replace_module(parent, child_name, new_module, child)
        else:
            setattr(parent, child_name, new_module)
            StyleContext.note_change()

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        """PEFT's choice of modules where none are named; none for a model that it does not know, if parameters are."""
        if peft_config.target_parameters and model_config.get("model_type") not in self.target_module_mapping:
            return peft_config
        return super()._prepare_adapter_config(peft_config, model_config)

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        """What must hold before the first layer is adapted."""
        warn_of_stacked_experts(model, peft_config)
        spare_head(model, peft_config)
        save_head(model, peft_config)
        check_stacks(model, peft_config.trainable)  # type: ignore[attr-defined]  # our own config
        if not peft_config.inference_mode:
            keep_unpacked(model)

    def _check_target_module_exists(self, peft_config: Any, key: str) -> Any:  # type: ignore[override]  # static there
        """PEFT's matching, in the last blocks only where `trainable` says so."""
        found = BaseTuner._check_target_module_exists(peft_config, key)
        return found and in_top_blocks(self.model, key, peft_config.trainable) and found

    def _check_target_module_compatiblity(self, peft_config: Any, model: nn.Module, target_name: str) -> None:
        """Refuses modules whose weight the model reads without calling them: their adapter would never run.

        Raises:
            ValueError: Such a module of a Mamba-like model.
        """
        super()._check_target_module_compatiblity(peft_config, model, target_name)
        kind = self.get_model_config(model).get("model_type")
        if kind in MAMBA_TYPES and target_name in ("out_proj", "conv1d", "dt_proj"):
            raise ValueError(
                f"target_modules matched {target_name!r}, which must not be adapted in a {kind} model: its forward is "
                "never called; name it in exclude_modules"
            )

    def _mark_only_adapters_as_trainable(self, model: nn.Module) -> None:
        """Freezes the backbone, but where `trainable="all"`."""
        super()._mark_only_adapters_as_trainable(model)
        set_trainable(model, self.peft_config.values())

    def _check_new_adapter_config(self, config: Any) -> None:
        """Refuses an adapter that would train or replace the backbone under those that stand on it.

        Raises:
            ValueError: `trainable="all"` for a further adapter, or parameters that cannot be adapted so.
        """
        super()._check_new_adapter_config(config)
        check_parameters(config, self.peft_config.values())
        if config.trainable == "all" and len(self.peft_config) > 1:
            raise ValueError(
                "trainable='all' must be the model's first adapter: the backbone is the others' too, and would change "
                "under them; add it to a model of its own, or set trainable='adapter'"
            )

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """PEFT's, and the backbone trains with the adapter that trains it alone."""
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        configs: dict[str, Any] = self.peft_config  # our own
        owners = {name for name, config in configs.items() if config.trainable == "all"}
        if owners:
            trains = not inference_mode and not owners.isdisjoint(self.active_adapters)
            self._paused = pause_backbone(self.model, self._paused, trains=trains)

    def delete_adapter(self, adapter_name: str) -> None:
        """PEFT's, and a backbone that trained with the adapter stays as it is."""
        config: Any = self.peft_config.get(adapter_name)
        super().delete_adapter(adapter_name)
        if config is not None and config.trainable == "all":
            pause_backbone(self.model, (), trains=False)
            self._paused = ()

    def _check_merge_allowed(self) -> None:
        """Refuses before the first layer is merged what a later one could not do; warns where the sum is rounded.

        A tied weight needs no warning: the merged layer gets a weight of its own.
        """
        layers = list(adapted_layers(self.model))
        for layer in layers:
            layer.check_mergeable()
        rounding = sorted({b.backend_name for b in (layer.quantization_backend for layer in layers) if b is not None})
        if rounding:
            warnings.warn(
                f"merge: the base is quantised ({', '.join(rounding)}), and W + dW is rounded as W was: the merged "
                "model differs from the adapted one. For an exact merge call dequantize() on the model first, or load "
                "the base unquantised, or export the style with export_lora",
                stacklevel=3,
            )

    def _post_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        """Opens the ways in, and closes those that would go past the adapted layers."""
        install_entries(model, self._context())
        keep_unfused(model)

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> Any:
        """PEFT's unloading, and the ways in closed again: what is left is the plain model."""
        model = super()._unload_and_optionally_merge(*args, **kwargs)
        remove_entries(self.model)
        drop_codes(self.model)
        fuse_again(self.model)
        return model

    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> AbstractContextManager[None]:
        """Runs each row with its adapter where PEFT's `adapter_names` are given."""
        adapter_names = kwargs.get("adapter_names")
        return nullcontext() if adapter_names is None else mixed_batch(self.model, adapter_names)

    @classmethod
    def _get_adapter_state_dict(  # type: ignore[override]  # our own config
        cls,
        model: nn.Module,
        config: StyleAdapterConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        """PEFT's choice of tensors to save, the backbone where it trains too, and the names of the gates' rows."""
        tensors = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        return described(with_backbone(tensors, state_dict, config), config.styles)

    @classmethod
    def _remap_adapter_state_dict_for_load(  # type: ignore[override]  # our own config
        cls, model: nn.Module, config: StyleAdapterConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """PEFT's keys, and each gate's row where the model has the style of its name."""
        tensors = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        return evolved(restored(tensors, model, config), config.styles, model.state_dict())


def bank_of(config: StyleAdapterConfig) -> StyleBank:
    """The bank that `config` describes."""
    return StyleBank(
        tuple(config.styles),
        default=config.default_style,
        style_dim=config.style_dim,
        noise_dim=config.noise_dim,
        noise_type=config.noise_type,
    )
