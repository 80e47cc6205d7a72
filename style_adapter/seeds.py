"""Randomness that depends on a row and on nothing else: not on its batch, its worker or its process.

The global generator would tie each draw to all draws before it: a resumed run, another split into batches or one more
worker would then train on other data.
"""

from collections.abc import Callable, Sequence
from zlib import crc32

import torch
from jaxtyping import Float
from torch import Tensor

_WORD = 2**64 - 1


def row_seed(seed: int, epoch: int, row: int, *, use: str = "") -> int:
    """h(h(h(h(use) ^ seed) ^ epoch) ^ row) / 2, a number in [0, 2^63): the seed of one row in one epoch.

    `h` is the mixer of splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), a
    bijection of 64 bits of which every input bit flips half of the output: neighbouring rows have nothing in common,
    nor have their low 32 bits, all that torch's generator takes in. Python's `hash` promises no value.

    Args:
        seed: Of the run.
        epoch: 0 for what stays the same in all of them.
        row: Id of the row.
        use: What is drawn, such as "noise": two uses of one row would otherwise share their numbers.

    >>> row_seed(0, 0, 7) == row_seed(0, 0, 7), row_seed(0, 0, 7) == row_seed(0, 0, 7, use="noise")
    (True, False)
    """
    state = crc32(use.encode())
    for number in (seed, epoch, row):
        state = _splitmix64(state) ^ (number & _WORD)
    return _splitmix64(state) >> 1


def seeds_for(seeds: Sequence[int], use: str) -> list[int]:
    """The seeds of rows for one use, out of the one seed that each row has."""
    return [row_seed(seed, 0, 0, use=use) for seed in seeds]


def generator_of(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that starts at `seed`; one for each row that is drawn for."""
    return torch.Generator(device).manual_seed(seed)


def normal_tokens(
    seeds: Sequence[int], lengths: Sequence[int], width: int, *, device: torch.device | str = "cpu"
) -> Float[Tensor, "tokens width"]:
    """Standard normal numbers for the tokens of each row, row after row; row b draws from `seeds[b]` alone."""
    return _drawn(lambda block, generator: block.normal_(generator=generator), seeds, lengths, width, device)


def gumbel_tokens(
    seeds: Sequence[int], lengths: Sequence[int], width: int, *, device: torch.device | str = "cpu"
) -> Float[Tensor, "tokens width"]:
    """g = -log e, with e standard exponential, laid out as `normal_tokens`: argmax(a + g) is a draw from softmax(a)."""
    return _drawn(_gumbel_, seeds, lengths, width, device)


def _gumbel_(block: Tensor, generator: torch.Generator) -> Tensor:
    """`block` filled with standard Gumbel numbers."""
    drawn = block.exponential_(generator=generator)
    # A uniform number of 24 bits is 0 once in 17 million draws, and a batch has more: infinite noise is NaN later.
    return drawn.clamp_(min=torch.finfo(block.dtype).tiny).log_().neg_()


def _drawn(
    fill: Callable[[Tensor, torch.Generator], Tensor],
    seeds: Sequence[int],
    lengths: Sequence[int],
    width: int,
    device: torch.device | str,
) -> Float[Tensor, "tokens width"]:
    """One block [length, width] a row, each filled by a generator of its own."""
    if len(seeds) != len(lengths):
        raise ValueError(f"seeds of length {len(seeds)} must be as long as lengths, {len(lengths)}; give one a row")
    drawn = torch.empty(sum(lengths), width, device=device)
    for seed, block in zip(seeds, drawn.split(list(lengths)), strict=True):
        fill(block, generator_of(seed, device))
    return drawn


def _splitmix64(state: int) -> int:
    """The output of splitmix64 at `state`."""
    z = (state + 0x9E3779B97F4A7C15) & _WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)
