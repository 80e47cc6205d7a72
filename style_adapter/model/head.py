"""What the head over the vocabulary reads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..functional import positions_of


@contextmanager
def head_reads(model: nn.Module, choose: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block the head over the vocabulary reads `choose(hidden)` instead of hidden [batch, seq, dim].

    `Tensor.contiguous` alone is worth it: in bf16 on the CPU a strided slice takes a batched product with one copy of
    the weight a row, 72 % of a generation's time and 40 % of a training step's. Choosing positions saves the rest.
    Other threads' calls of the same model read what they would read without the block.
    """
    base: Any = getattr(model, "get_base_model", lambda: model)()
    head = base.get_output_embeddings()
    if head is None:
        yield
        return
    owner = get_ident()

    def read(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not torch.compiler.is_compiling() and get_ident() != owner:
            return None
        return (choose(args[0]), *args[1:])

    handle = head.register_forward_pre_hook(read)
    try:
        yield
    finally:
        handle.remove()


def target_logits(
    model: nn.Module,
    *,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch target"],
    mask: Bool[Tensor, "batch target"],
    decoder_only: bool,
) -> Float[Tensor, "tokens vocab"]:
    """Logits that predict the target tokens under `mask`, and no others: the vocabulary's head costs more than a block.

    Args:
        model: A causal language model, or an encoder-decoder.
        input_ids: Prompt, padded on the left, and target behind it; an encoder-decoder's source alone.
        attention_mask: Of `input_ids`.
        labels: The targets.
        mask: Which of them count.
        decoder_only: Whether prompt and target stand in one sequence.
    """
    if not decoder_only:
        read = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, labels=labels)
        return read.logits[mask]
    with head_reads(model, lambda hidden: hidden[:, :-1][mask]):  # the token before predicts
        return model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            position_ids=positions_of(attention_mask),
            logits_to_keep=mask.shape[1] + 1,
        ).logits
