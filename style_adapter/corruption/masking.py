"""Masked tokens for encoders: what an adapter learns the language of a style from without labels."""

from collections.abc import Collection, Sequence

import torch

from ..functional import IGNORED


def mask_tokens(
    ids: Sequence[int],
    generator: torch.Generator,
    *,
    mask_id: int,
    vocab_size: int,
    special: Collection[int] = (),
    rate: float = 0.15,
) -> tuple[list[int], list[int]]:
    """(ids, labels): round(rate * n) of n tokens to be told, at least 1, of which 80 % are masked and 10 % random.

    The last 10 % stay, so that the model cannot trust what it sees. Devlin et al. 2018 (arXiv 1810.04805), section 3.1
    and appendix A.1. A label is the token at the chosen places and -100 elsewhere.

    Args:
        ids: Tokens of one text without padding.
        generator: Of the row; it gives 3 numbers a token whatever the ids are.
        mask_id: The token that masks.
        vocab_size: Random tokens are drawn below it.
        special: Tokens that are never chosen, such as those that open and close a text.
        rate: Share of the other tokens that is chosen.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate={rate} must be > 0 and <= 1; 0.15 is usual")
    choice, action, token = torch.rand(3, len(ids), generator=generator, dtype=torch.float64).tolist()
    places = sorted((i for i, known in enumerate(ids) if known not in special), key=choice.__getitem__)
    spoilt, labels = list(ids), [IGNORED] * len(ids)
    for place in places[: max(1, round(rate * len(places)))]:
        labels[place] = ids[place]
        if action[place] < 0.8:
            spoilt[place] = mask_id
        elif action[place] < 0.9:
            spoilt[place] = int(token[place] * vocab_size)
    return spoilt, labels
