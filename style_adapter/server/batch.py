"""Rows of any requests, styles, lengths and temperatures written in one `generate`, each as if it were alone."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria

from ..inference import StylePipeline, evaluating
from ..inference.batches import continued
from ..model import head_reads
from ..sampling import SeededSampling
from .rows import Draw, News, Row
from .texts import GrowingText


def write_batch(pipe: StylePipeline, rows: Sequence[Row]) -> int:
    """Writes the rows, telling each what is new after every token, and gives the number of tokens written.

    A row ends at its own bound, at a stop, at the end-of-text token or when it is dropped; the others go on. Its draws
    follow from its own seed, as in `write`.

    Args:
        pipe: Model and tokenizer.
        rows: With equal strengths by block.
    """
    most = max(row.most for row in rows)
    watch = RowWatch(rows, pipe.tokenizer)
    with evaluating(pipe.model), head_reads(pipe.model, Tensor.contiguous):
        continued(
            pipe.model,
            pipe.tokenizer,
            [row.prompt for row in rows],
            styles=[row.style for row in rows],
            strength=rows[0].factors,
            style_noise=_noise(rows),
            max_new_tokens=most,
            num_beams=1,
            logits_processor=[RowSampling(rows, most)],
            stopping_criteria=[watch],
        )
    watch.close()
    return sum(watch.tokens)


class RowSampling(LogitsProcessor):
    """Greedy search that draws the tokens of those rows that have a temperature, each by its own `Draw` and seed.

    Args:
        rows: In the order of the batch.
        length: Most tokens that will be drawn.
    """

    def __init__(self, rows: Sequence[Row], length: int) -> None:
        """One sampler for all rows that draw alike."""
        alike: dict[Draw, list[int]] = {}
        for place, row in enumerate(rows):
            if row.draw.temperature > 0:
                alike.setdefault(row.draw, []).append(place)
        self._samplers = [
            (torch.tensor(places), SeededSampling([rows[i].seed for i in places], length, **vars(draw)))
            for draw, places in alike.items()
        ]

    def __call__(
        self, input_ids: Int[Tensor, "rows seq"], scores: Float[Tensor, "rows vocab"]
    ) -> Float[Tensor, "rows vocab"]:
        """Scores in which, of each row that draws, only the drawn token is above -inf."""
        for places, draw in self._samplers:
            chosen = places.to(scores.device)
            scores[chosen] = draw(input_ids[chosen], scores[chosen])
        return scores


class RowWatch(StoppingCriteria):
    """Looks at each row after each token: gives out its text, and says when it ends.

    Args:
        rows: In the order of the batch.
        tokenizer: The backbone's.

    Attributes:
        tokens: How many tokens each row has.
    """

    def __init__(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> None:
        """Nothing is written yet."""
        self._rows, self._end = rows, tokenizer.eos_token_id
        self._texts = [GrowingText(tokenizer, row.stops) for row in rows]
        self._ended = [False] * len(rows)
        self.tokens = [0] * len(rows)

    def __call__(self, input_ids: Int[Tensor, "rows seq"], scores: Any, **kwargs: Any) -> Bool[Tensor, " rows"]:
        """Whether each row has ended; its newest token is the last of its ids."""
        for place, token in enumerate(input_ids[:, -1].tolist()):
            if not self._ended[place]:
                self._look(place, token)
        return torch.tensor(self._ended, device=input_ids.device)

    def close(self) -> None:
        """Ends the rows that something else has ended, such as a bound of the model's own."""
        for place, ended in enumerate(self._ended):
            if not ended:
                self._finish(place, self._texts[place].end(), "length")

    def _look(self, place: int, token: int) -> None:
        """One more token of one row."""
        row, text = self._rows[place], self._texts[place]
        if row.dropped:
            self._ended[place] = True
            return
        self.tokens[place] += 1
        if token == self._end:
            self._finish(place, text.end(), "stop")
            return
        piece = text.add(token)
        if text.stopped:
            self._finish(place, piece, "stop")
        elif self.tokens[place] == row.most:
            self._finish(place, piece + text.end(), "length")
        elif piece:
            row.tell(row.place, News(piece))

    def _finish(self, place: int, piece: str, reason: str) -> None:
        """A row ends with its last piece."""
        self._ended[place] = True
        row = self._rows[place]
        row.tell(row.place, News(piece, reason, self.tokens[place]))


def _noise(rows: Sequence[Row]) -> Float[Tensor, "rows noise_dim"] | None:
    """z of each row, zero where it takes none; None where no row takes any."""
    given = next((row.noise for row in rows if row.noise is not None), None)
    if given is None:
        return None
    return torch.cat([torch.zeros_like(given) if row.noise is None else row.noise for row in rows])
