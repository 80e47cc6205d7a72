"""The generator writing freely: y ~ G(x, s, z), token by token, without gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor

from ..data import pad_and_mask, room
from ..model import head_reads, styled
from ..sampling import SeededSampling
from ..style import StyleCode


@dataclass(frozen=True)
class Writer:
    """Writes a text for each prompt; a row's text depends on its own prompt, style and seed alone.

    Attributes:
        fill: Token ids of texts -> those of the prompts around them, as a rewrite is asked for.
        pad: The padding token.
        end: The token that ends a text.
        temperature: Of the draws; 0 takes the likeliest token.
        top_k: How many tokens may be drawn.
        top_p: Least probability that these have together.
        room: Most tokens of a text whose prompt is short; None bounds it by one and a half times its prompt.
    """

    fill: Callable[[list[list[int]]], list[list[int]]]
    pad: int
    end: int
    temperature: float = 1.0
    top_k: int = 64
    top_p: float = 1.0
    room: int | None = None

    def bound(self, prompt: Sequence[int]) -> int:
        """Most tokens of the text for one prompt."""
        return self.room or room(len(prompt))

    def __call__(
        self,
        model: PeftModel,
        prompts: Sequence[Sequence[int]],
        code: StyleCode,
        seeds: Sequence[int],
        *,
        lockstep: bool = False,
    ) -> list[list[int]]:
        """One text a prompt, with its end token where it came to one.

        Args:
            model: The generator; no dropout while it writes.
            prompts: Token ids.
            code: One style a row.
            seeds: One a row.
            lockstep: Whether the processes must run the model equally often.
        """
        decoder_only, training = not model.config.is_encoder_decoder, model.training
        ids, mask = (t.to(code.ids.device) for t in pad_and_mask(prompts, self.pad, left=decoder_only))
        bounds = [self.bound(prompt) for prompt in prompts]
        draw = SeededSampling(seeds, max(bounds), temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
        model.eval()
        try:
            with torch.no_grad(), styled(model, code), head_reads(model, Tensor.contiguous):
                found = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=max(bounds),
                    do_sample=False,
                    num_beams=1,
                    logits_processor=[draw],
                    pad_token_id=self.pad,
                    eos_token_id=self.end,
                    synced_gpus=lockstep,
                )
        finally:
            model.train(training)
        new = found[:, ids.shape[1] :] if decoder_only else found[:, 1:]
        return [self._ended(text)[:most] for text, most in zip(new.tolist(), bounds, strict=True)]

    def _ended(self, text: list[int]) -> list[int]:
        """`text` up to its end token, that included."""
        return text[: text.index(self.end) + 1] if self.end in text else text
