"""The two methods that every operation is run with, and what the operations compare."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from style_adapter import StyleAdapterConfig
from style_adapter.layers import StyleLayer

from .architectures import Architecture

RANK, ALPHA = 4, 8.0


@dataclass(frozen=True)
class Method:
    """A PEFT method: how its config is made, what its tensors and layers are called.

    Attributes:
        name: Its name in the case ids.
        prefix: What the names of its tensors begin with.
        layer: The class of its layers.
        make: Makes its config; `alpha` and `bias="own"` (biases of adapted layers) are translated.
    """

    name: str
    prefix: str
    layer: type[BaseTunerLayer]
    make: Callable[..., PeftConfig]

    def config(self, architecture: Architecture, **options: Any) -> PeftConfig:
        """A config for the architecture's listed targets, where no option says otherwise."""
        given = {"target_modules": list(architecture.targets), "task_type": architecture.task}
        given |= {"r": RANK, "alpha": ALPHA} | options
        if given.get("bias") == "own":
            given["bias"] = self.prefix + "only"
        return self.make(**given)

    def all_linear(self, architecture: Architecture) -> PeftConfig:
        """A config for all linear layers that run; without a task, whose head would be saved whole."""
        excluded = list(architecture.uncalled) or None
        return self.config(architecture, target_modules="all-linear", exclude_modules=excluded, task_type=None)

    def adapted(self, architecture: Architecture, seed: int = 0, **options: Any) -> PeftModel:
        """The architecture with a random adapter that matters."""
        model = get_peft_model(architecture.base(), self.config(architecture, **options))
        return self.randomise(model, seed).eval()

    def two(self, architecture: Architecture, **options: Any) -> PeftModel:
        """The architecture with the random adapters "one" (active) and "two"."""
        model = get_peft_model(architecture.base(), self.config(architecture, **options), adapter_name="one")
        model.add_adapter("two", self.config(architecture, **{"r": 2} | options))
        return self.randomise(self.randomise(model, 1, "one"), 2, "two").eval()

    def tensors(self, model: nn.Module, adapter: str = "") -> dict[str, nn.Parameter]:
        """The adapter's own tensors, by name."""
        name = rf"{self.prefix}\w+" + (rf"\.{adapter}(\.|$)" if adapter else "")
        return {n: p for n, p in model.named_parameters() if re.search(name, n)}

    def randomise(self, model: nn.Module, seed: int = 0, adapter: str = "") -> Any:
        """Draws every tensor of the adapter anew, so that no part of the update is zero or one."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.tensors(model, adapter).values():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        return model

    def layers(self, model: nn.Module) -> dict[str, BaseTunerLayer]:
        """The adapted layers by their names in the base model."""
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        return {name: module for name, module in base.named_modules() if isinstance(module, self.layer)}

    def by_hand(
        self, architecture: Architecture, model: nn.Module, adapters: Iterable[str] = ("default",)
    ) -> nn.Module:
        """The plain base with W + sum of dW in place of each adapted W: what no forward of an adapter touches."""
        plain = architecture.base()
        with torch.no_grad():
            for name, layer in self.layers(model).items():
                for adapter in adapters:
                    weight = plain.get_submodule(name).weight
                    weight += layer.get_delta_weight(adapter)
        return plain


def _lora(*, alpha: float, **options: Any) -> PeftConfig:
    return LoraConfig(lora_alpha=alpha, **options)


def _style(**options: Any) -> PeftConfig:
    return StyleAdapterConfig(**{"styles": ["modern", "kjv", "pirate"]} | options)


LORA = Method("lora", "lora_", LoraLayer, _lora)
STYLE = Method("style", "style_adapter_", StyleLayer, _style)


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Bit by bit."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    """Up to the rounding of another order of the same sums, in fp32."""
    torch.testing.assert_close(actual, expected, rtol=10 * tolerance, atol=tolerance)


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """Up to the rounding of bf16: a tenth of the whole."""
    assert (actual - expected).norm() < 0.1 * expected.norm()


def assert_differ(actual: Tensor, other: Tensor) -> None:
    """Far beyond rounding: the positive control of every equality above."""
    assert not torch.allclose(actual, other, atol=1e-2), "the adapter should matter"
