"""What a step of training holds, found by taking it with tensors that have shapes and no numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F  # noqa: N812
from transformers import AutoConfig, AutoModelForCausalLM

from ..adversary import find_blocks
from ..config import StyleAdapterConfig
from ..layers import StyleLayer
from ..model import head_reads
from .peak import PeakBytes


@dataclass(frozen=True)
class Work:
    """What one GPU does in a step.

    Attributes:
        batch: Rows.
        prompt: Tokens of a prompt.
        target: Tokens of a target behind it, which the head over the vocabulary reads.
        r: Rank.
        styles: How many.
        dtype: Of the frozen weights; autocast computes in it where it is no fp32.
    """

    batch: int = 8
    prompt: int = 256
    target: int = 256
    r: int = 16
    styles: int = 2
    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        """Raises: ValueError: A number that is none of a step."""
        for name in ("batch", "prompt", "target", "r", "styles"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1; set it to what you train with")


@dataclass(frozen=True)
class Model:
    """What is known of an adapted backbone without its numbers.

    Attributes:
        linear: Numbers in adapted weights, which 4 bits may hold.
        block: Numbers in the frozen weights of the largest block.
        blocks: Numbers in those of all blocks.
        frozen: Numbers in all frozen weights.
        trained: Numbers in factors and gates.
        steps: The peak of forward and backward in bytes, without and with checkpointing.
        largest: Numbers in the largest adapted weight.
        style: Numbers that one style has.
    """

    linear: int
    block: int
    blocks: int
    frozen: int
    trained: int
    steps: Mapping[bool, int]
    largest: int
    style: int


def survey(backbone: str, work: Work) -> Model:
    """Builds a backbone and its adapter without numbers and takes one step with them.

    Args:
        backbone: Hub id or folder; its configuration is read.
        work: The step.

    Raises:
        OSError: No such backbone.
        ValueError: It is no causal language model.
    """
    config = AutoConfig.from_pretrained(backbone)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=work.dtype)
        styles = StyleAdapterConfig(styles=["a", "b"], r=work.r, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted = get_peft_model(model, styles)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _put_on_cpu(adapted)
        layers: list[Any] = [layer for layer in adapted.modules() if isinstance(layer, StyleLayer)]
        linear = [layer.get_base_layer().weight.numel() for layer in layers]
        blocks = [_count(block, trained=False) for block in find_blocks(adapted)]
        style = work.r * len(linear)
        return Model(
            linear=sum(linear),
            block=max(blocks),
            blocks=sum(blocks),
            frozen=_count(adapted, trained=False),
            trained=_count(adapted, trained=True) + (work.styles - 2) * style,
            steps={
                checkpointing: step_bytes(adapted, work, checkpointing=checkpointing) for checkpointing in (False, True)
            },
            largest=max(linear),
            style=style,
        )


def _put_on_cpu(model: nn.Module) -> None:
    """Gives a model of the meta device fake weights on the CPU: operations then choose the kernels of real ones."""
    made: dict[int, Tensor] = {}  # by weight: a tied one is one
    for module in model.modules():
        tables: list[dict[str, Any]] = [module._parameters, module._buffers]
        for table in tables:
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty_like(tensor, device="cpu")
                    is_weight = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if is_weight else fake
                table[name] = made[id(tensor)]


def _count(module: nn.Module, *, trained: bool) -> int:
    """Numbers in the weights that are trained, or in those that are not."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad == trained)


def step_bytes(model: PeftModel, work: Work, *, checkpointing: bool = False) -> int:
    """The most bytes that forward and backward of -log p(target | prompt, style) hold beside weights and gradients.

    Its weights may be real ones, on any device, or fake ones, which cost nothing.
    """
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    device = next(model.parameters()).device
    known = [*model.parameters(), *model.buffers()]
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        weight.grad = torch.zeros_like(weight)
        known.append(weight.grad)
    length = work.prompt + work.target
    ids = torch.zeros(work.batch, length, dtype=torch.long, device=device)
    mask = torch.ones(work.batch, 1, length, length, dtype=torch.bool, device=device)  # as of rows that are padded
    try:
        with PeakBytes(known) as counted:
            _surprise(model, work, ids, mask).backward()  # what only led to it is gone by now, as in a trainer's step
    finally:
        model.zero_grad()
        if checkpointing:
            model.activation_checkpointing_disable()
    return counted.peak


def _surprise(
    model: PeftModel, work: Work, ids: Int[Tensor, "batch seq"], mask: Bool[Tensor, "batch 1 seq seq"]
) -> Float[Tensor, ""]:
    """The mean of -log p over the targets."""
    styles = [*model.styles][:1] * work.batch
    targets = ids[:, -work.target :].flatten()
    with (
        torch.autocast(ids.device.type, work.dtype, enabled=work.dtype != torch.float32),
        head_reads(model, lambda hidden: hidden[:, :-1].flatten(0, 1)),
    ):
        logits = model(
            input_ids=ids, attention_mask=mask, use_cache=False, styles=styles, logits_to_keep=work.target + 1
        ).logits
    return F.cross_entropy(logits.clone().float(), targets)  # as `token_cross_entropy`, which picks what counts
