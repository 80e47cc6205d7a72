"""All that touches PEFT's insides: the entry in its `PeftType`, the registration, private names and its version.

A PEFT release can break this file only. Public PEFT names may be imported anywhere.
"""

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import peft
from packaging.version import Version
from peft import PeftConfig, PeftModel, PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import (
    BaseTuner,
    BaseTunerLayer,
    _get_in_out_features,
    check_adapters_to_merge,
)
from peft.utils import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    get_quantization_kwargs,
    hotswap,
    register_peft_method,
    resolve_quantization_backend,
)
from peft.utils.other import AuxiliaryTrainingWrapper, get_pattern_key
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING
from torch import nn
from transformers.integrations import PeftAdapterMixin

__all__ = [
    "AuxiliaryTrainingWrapper",
    "BaseTuner",
    "BaseTunerLayer",
    "DEFAULT_TARGETS",
    "PREFIX",
    "STYLE_ADAPTER",
    "check_adapters_to_merge",
    "exact_targets",
    "extend",
    "features_of",
    "get_pattern_key",
    "get_quantization_kwargs",
    "register",
    "resolve_quantization_backend",
    "stacked_experts",
]

PREFIX = "style_adapter_"
DEFAULT_TARGETS: dict[str, list[str]] = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING  # type: ignore[assignment]  # PEFT types it in two ways
TESTED = ("0.21.2", "0.22")  # from, up to but without; earlier ones fail on encoder-decoders with these transformers


def features_of(layer: nn.Module) -> tuple[int, int]:
    """Sizes of the layer's input and output, whatever its kind and quantisation.

    Raises:
        ValueError: PEFT cannot tell them.
    """
    d_in, d_out = _get_in_out_features(layer)
    if d_in is None or d_out is None:
        raise ValueError(
            f"target_modules matched {type(layer).__name__}, which must have in_features and out_features; leave it "
            "out of target_modules"
        )
    return d_in, d_out


def stacked_experts(model: nn.Module) -> dict[str, str]:
    """The experts' projections by the names they had as modules, and the parameters that hold them since; maybe none.

    Transformers 5 stacks the experts of a layer; PEFT reads a LoRA's `target_modules` of before by this table.
    """
    kind = str(getattr(getattr(model, "config", None), "model_type", None))
    renamed = _MOE_TARGET_MODULE_MAPPING.get(_MODEL_TO_CONVERSION_PATTERN.get(kind, kind), {})
    stacked = {name.rpartition(".")[2] for name, parameter in model.named_parameters() if parameter.dim() == 3}
    return {before: now for before, now in renamed.items() if now in stacked}


def exact_targets(names: Sequence[str], modules: Iterable[str]) -> list[str] | str:
    """`names` as `target_modules` that match these modules alone: PEFT takes a name for the end of a longer one too.

    >>> exact_targets(["lin"], ["lin", "mlp"]), exact_targets(["lin"], ["lin", "mlp.lin"])
    (['lin'], 'lin')
    """
    wanted = set(names)
    ends = (name[dot.end() :] for name in modules if name not in wanted for dot in re.finditer(r"\.", name))
    if not wanted.isdisjoint(ends):
        return "|".join(map(re.escape, names))  # one string is matched as a whole
    return sorted(names)


def _add_peft_type(name: str) -> PeftType:
    """The member `name` of PEFT's enum of methods, added by hand: the enum has no opening for plugins.

    A plain string instead of a member breaks transformers' integration, which compares members.
    """
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_, member._value_ = name, name
    PeftType._member_map_[name] = member
    PeftType._member_names_.append(name)
    PeftType._value2member_map_[name] = member
    type.__setattr__(PeftType, name, member)  # the metaclass forbids a plain setattr
    return member


STYLE_ADAPTER = _add_peft_type("STYLE_ADAPTER")


def _warn_if_untested() -> None:
    """One warning where PEFT is outside the range that the test suite has run with."""
    low, high = map(Version, TESTED)
    if not low <= Version(peft.__version__) < high:
        warnings.warn(
            f"style_adapter is tested with peft >= {low}, < {high}, and found {peft.__version__}; "
            f"if something fails, pip install 'peft>={low},<{high}'",
            stacklevel=3,
        )


def register(config_cls: type[PeftConfig], model_cls: Any) -> None:
    """Makes `get_peft_model`, `PeftModel.from_pretrained` and `inject_adapter_in_model` know the method.

    Safe to call twice: a second call changes nothing.
    """
    _warn_if_untested()
    if STYLE_ADAPTER not in PEFT_TYPE_TO_TUNER_MAPPING:
        register_peft_method(name="style_adapter", config_cls=config_cls, model_cls=model_cls, prefix=PREFIX)
        _refuse_hotswaps()
        _guard_loading(model_cls.check_loading)


def _guard_loading(check: Callable[[PeftConfig, Mapping[str, Any]], None]) -> None:
    """Has `check` look at a config of ours that transformers' `load_adapter` is given: it asks no tuner afterwards."""
    theirs = PeftAdapterMixin.load_adapter

    @functools.wraps(theirs)
    def load_adapter(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Theirs, after the check."""
        given = inspect.signature(theirs).bind(self, *args, **kwargs).arguments
        config: Any = given.get("peft_config")
        if getattr(config, "peft_type", None) == STYLE_ADAPTER:
            check(config, given)
        return theirs(self, *args, **kwargs)

    PeftAdapterMixin.load_adapter = load_adapter  # type: ignore[method-assign]  # no tuner hears of what is loaded


def _refuse_hotswaps() -> None:
    """PEFT swaps the tensors of a LoRA in place; where it is asked to swap ours, its refusal names the way to go."""
    theirs = hotswap.check_hotswap_configs_compatible

    @functools.wraps(theirs)
    def check(config0: PeftConfig, config1: PeftConfig) -> None:
        """Their check, with a remedy in the error."""
        try:
            theirs(config0, config1)
        except ValueError as error:
            if STYLE_ADAPTER not in (config0.peft_type, config1.peft_type):
                raise
            raise ValueError(
                f"{error} model.load_adapter(folder, adapter_name=...) under the same name replaces the weights, and "
                "the styles of one adapter need no swap: with model.styled(...)"
            ) from error

    hotswap.check_hotswap_configs_compatible = check


def extend(name: str, ours: Callable[..., Any]) -> None:
    """`PeftModel.<name>` becomes `ours(model, ...)` where a style adapter is active, and stays PEFT's for all others.

    The tuner is never told which `PeftModel` holds it, so the class is the only place.
    """
    theirs = getattr(PeftModel, name)

    @functools.wraps(theirs)
    def method(self: PeftModel, *args: Any, **kwargs: Any) -> Any:
        """One of the two."""
        active = self.peft_config.get(self.active_adapters[0])
        mine = active is not None and active.peft_type == STYLE_ADAPTER
        return ours(self, *args, **kwargs) if mine else theirs(self, *args, **kwargs)

    setattr(PeftModel, name, method)
