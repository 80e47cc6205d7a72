"""A text as it is written, piece by piece."""

from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria, TextIteratorStreamer

from ..data import prompt_ids, room
from ..model import Strength, head_reads
from ..sampling import SeededSampling
from ..seeds import row_seed
from .batches import continued, evaluating, prompt_of, rows_of
from .writing import TOP_K


def stream(  # noqa: PLR0913 - one option a way to draw
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    style: Any = None,
    *,
    strength: Strength = 1.0,
    temperature: float | int = 0.0,
    top_k: int = TOP_K,
    max_new_tokens: int | None = None,
    prompt: str | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """The pieces of what `transfer` gives at once, or of the text that `write` draws first, as they are written.

    It takes no noise: where the adapter has `noise_dim`, `write` draws another text. A thread writes; it stops when the
    iterator is closed, and its errors are raised here.

    Args:
        model: A model with a style adapter.
        tokenizer: The backbone's.
        source: A text, or a prompt.
        style: The style; the default one if left out.
        strength: A factor on the style, as in `transfer`.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: How many of the likeliest tokens may be drawn.
        max_new_tokens: Bound of the text; by default one and a half times the prompt, and some.
        prompt: What stands around the source; what the adapter was trained with if left out.
        seed: Another one draws another text.

    Raises:
        ValueError: A style that the adapter lacks, or an option out of its bounds.
    """
    (tokens,), styles = prompt_ids(tokenizer, prompt or prompt_of(model), [source]), rows_of(model, style, 1)
    bound = max_new_tokens or room(len(tokens))
    draw = SeededSampling([row_seed(seed, 0, 0, use="text")], bound, temperature=temperature, top_k=top_k)
    pieces, closed, errors = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True), Event(), []

    def work() -> None:
        try:
            with evaluating(model), head_reads(model, Tensor.contiguous):
                continued(
                    model,
                    tokenizer,
                    [tokens],
                    styles=styles,
                    strength=strength,
                    max_new_tokens=bound,
                    num_beams=1,
                    logits_processor=[draw],
                    stopping_criteria=[_Closed(closed)],
                    streamer=pieces,
                )
        except Exception as error:
            errors.append(error)
        finally:
            pieces.end()

    return _read(pieces, Thread(target=work, daemon=True), closed, errors)


def _read(pieces: TextIteratorStreamer, thread: Thread, closed: Event, errors: list[Exception]) -> Iterator[str]:
    """What the thread writes, without white space before the first word."""
    thread.start()
    begun = False
    try:
        for piece in pieces:
            text = piece if begun else piece.lstrip()
            begun = begun or bool(text)
            if text:
                yield text
    finally:
        closed.set()
        thread.join()
    if errors:
        raise errors[0]


class _Closed(StoppingCriteria):
    """Ends a text that nobody reads any more."""

    def __init__(self, closed: Event) -> None:
        self.closed = closed

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.full((input_ids.shape[0],), self.closed.is_set(), device=input_ids.device)
