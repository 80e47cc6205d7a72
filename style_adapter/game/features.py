"""What the discriminator reads: hidden states of the backbone's first blocks, which must not train."""

import copy
import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from .._peft import PREFIX
from ..adversary import find_blocks, hidden_after
from ..model import styled
from ..style import OFF


class FrozenFeatures:
    """phi_k(text) = hidden states of the first `depth` blocks of the backbone, adapter off, no dropout.

    Reads token ids or embeddings [batch, seq, dim]; gradients pass to the embeddings. An encoder-decoder is read by
    its encoder. Reads the backbone that is adapted, so that nothing is copied; one that trains too would make the
    features move with every step, so it is refused, and a frozen one read in its place.
    """

    def __init__(self, model: PeftModel, depth: int, *, backbone: PreTrainedModel | None = None) -> None:
        """Reads `depth` blocks of `model` with its adapter off, or of a plain `backbone` beside it."""
        self.model, self.depth, self.own = model, depth, backbone

    def check_frozen(self) -> None:
        """Refuses to read what trains.

        Raises:
            ValueError: A weight of the blocks, or of what the model has before them, has a gradient.
        """
        named, blocks = list(self.backbone.named_parameters()), find_blocks(self.backbone)
        stack = {id(p) for block in blocks for p in block.parameters()}
        last = max((i for i, (_, p) in enumerate(named) if id(p) in stack), default=len(named))
        unread = {id(p) for block in blocks[self.depth :] for p in block.parameters()}
        unread |= {id(p) for _, p in named[last + 1 :]}  # such as the norm that follows the blocks
        read = [*named, *self.embedding.named_parameters(prefix="embedding")]
        moving = [n for n, p in read if p.requires_grad and id(p) not in unread and (self.own or PREFIX not in n)]
        if moving:
            raise ValueError(
                f"model: what the discriminator reads must be frozen, and {moving[0]} trains (trainable='all', a bias, "
                "or by hand); give the discriminator a frozen copy (discriminator_copy=True in StyleTrainingArguments, "
                "backbone=frozen_copy(model) for a game), or leave it out with adversary_fraction=0"
            )

    def check_depth(self) -> None:
        """Refuses a depth that the backbone does not have: at once, not at the game's first step."""
        if not 0 <= self.depth <= (most := len(find_blocks(self.backbone))):
            raise ValueError(
                f"depth={self.depth} must be between 0 and {most}, the backbone's number of blocks; set "
                "discriminator_blocks in StyleTrainingArguments"
            )

    @property
    def backbone(self) -> nn.Module:
        """The part of the model that maps embeddings to hidden states."""
        base = self._whole()
        return base.get_encoder() if getattr(base.config, "is_encoder_decoder", False) else base.base_model

    @property
    def embedding(self) -> nn.Module:
        """The token embedding."""
        return self._whole().get_input_embeddings()

    def _whole(self) -> PreTrainedModel:
        """The model that is read; one of its own follows the adapted one to its device."""
        adapted = backbone_of(self.model)
        return adapted if self.own is None else self.own.to(adapted.device)  # type: ignore[arg-type]  # a torch.device

    def _off(self) -> AbstractContextManager[None]:
        """Inside the block the model that is read is the plain backbone."""
        return nullcontext() if self.own is not None else styled(self.model, OFF)

    def __call__(
        self, embeddings: Float[Tensor, "batch seq dim"], mask: Bool[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq dim"]:
        """The features of embedded texts; padding on the right."""
        backbone = self.backbone
        takes_cache = "use_cache" in inspect.signature(backbone.forward).parameters
        training = backbone.training
        backbone.eval()  # dropout would make the features of one text differ from step to step
        try:
            with self._off():
                return hidden_after(
                    backbone,
                    find_blocks(backbone),
                    self.depth,
                    inputs_embeds=embeddings,
                    attention_mask=mask.long(),
                    **({"use_cache": False} if takes_cache else {}),
                )
        finally:
            backbone.train(training)

    def embed(self, tokens: Int[Tensor, " tokens"], mask: Bool[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        """Embeddings of real tokens at the places of `mask`, without gradient."""
        with torch.no_grad(), self._off():
            return _placed(self.embedding(tokens), mask)

    @property
    def table(self) -> Float[Tensor, "vocab dim"]:
        """The embedding of each token, before the embedding module scales it (Gemma)."""
        return self.embedding.get_parameter("weight").detach()

    def place(
        self, embedded: Float[Tensor, "tokens dim"], mask: Bool[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq dim"]:
        """Rows of `table`, or mixtures of them, at the places of `mask`, scaled as the embedding module scales."""
        return _placed(embedded * getattr(self.embedding, "embed_scale", 1.0), mask)


def _placed(embedded: Float[Tensor, "tokens dim"], mask: Bool[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
    """Embeddings put where `mask` is set, row by row; zero elsewhere."""
    return embedded.new_zeros(*mask.shape, embedded.shape[-1]).masked_scatter(mask[..., None], embedded)


def backbone_of(model: PeftModel) -> PreTrainedModel:
    """The backbone, adapted layers and all."""
    return cast(PreTrainedModel, model.get_base_model())


def frozen_copy(model: PeftModel) -> PreTrainedModel:
    """The plain backbone of `model` as it is now, copied, without adapters, frozen: what a discriminator can read.

    For a backbone that trains too (`trainable="all"`): made before training, so that its features stay what they were.
    """
    return cast(PreTrainedModel, copy.deepcopy(model).unload().requires_grad_(False).eval())


def width_of(model: PeftModel) -> int:
    """Width of the backbone's embeddings and hidden states."""
    weight = backbone_of(model).get_input_embeddings().get_parameter("weight")
    return getattr(weight, "ds_shape", weight.shape)[1]  # of a shard of DeepSpeed's the shape says nothing
