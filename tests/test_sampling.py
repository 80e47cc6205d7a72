"""Draws against the softmax, transformers' own cuts, and themselves in other batches."""

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from style_adapter.sampling import SeededSampling
from style_adapter.seeds import row_seed

LOGITS = torch.tensor([1.0, 0.2, -0.5, 2.0, -3.0])
CHI_SQUARE_4 = 18.47  # a draw from the right distribution is above it once in a thousand times


def drawn(scores: torch.Tensor, seeds: list[int], steps: int = 1, **options) -> torch.Tensor:
    """The tokens that greedy search takes [rows, steps] where every step has the same scores."""
    sampling = SeededSampling(seeds, steps, **options)
    ids = torch.zeros(len(seeds), 1, dtype=torch.long)
    return torch.stack([sampling(ids, scores).argmax(-1) for _ in range(steps)], dim=1)


def chi_square(tokens: torch.Tensor, shares: torch.Tensor) -> float:
    """sum_v (found_v - expected_v)^2 / expected_v."""
    expected = shares * tokens.numel()
    found = torch.bincount(tokens.flatten(), minlength=len(shares))
    return float(((found - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("top_k", [5, 64])
def test_sampling_follows_softmax(temperature, top_k):
    seeds = [row_seed(0, 0, row) for row in range(4000)]
    tokens = drawn(LOGITS.expand(4000, -1), seeds, 2, temperature=temperature, top_k=top_k)
    shares = torch.softmax(LOGITS / temperature, dim=-1)
    assert chi_square(tokens[:, 0], shares) < CHI_SQUARE_4
    assert chi_square(tokens[:, 1], shares) < CHI_SQUARE_4
    assert chi_square(tokens[:, 0], torch.softmax(LOGITS / (temperature + 0.2), dim=-1)) > CHI_SQUARE_4
    pairs = tokens[:, 0] * 5 + tokens[:, 1]  # the steps of a row are independent of one another
    common = pairs[(pairs // 5 != 4) & (pairs % 5 != 4)]
    both = torch.outer(shares, shares).flatten()
    found = torch.bincount(common, minlength=25)
    assert torch.allclose(found / 4000, both.where(found > 0, 0), atol=0.02)


@pytest.mark.parametrize(("top_k", "top_p"), [(2, 1.0), (5, 0.7), (4, 0.9), (1, 1.0), (3, 0.05)])
def test_cuts_are_those_of_transformers(top_k, top_p):
    seeds = [row_seed(1, 0, row) for row in range(3000)]
    tokens = drawn(LOGITS.expand(3000, -1), seeds, temperature=1.5, top_k=top_k, top_p=top_p)
    scores = LOGITS[None]
    for cut in (TemperatureLogitsWarper(1.5), TopKLogitsWarper(top_k), TopPLogitsWarper(top_p)):
        scores = cut(None, scores)
    assert set(tokens.flatten().tolist()) == set(scores[0].isfinite().nonzero().flatten().tolist())
    shares = torch.softmax(scores[0], dim=-1)
    kept = shares > 0
    numbers = torch.bincount(tokens.flatten(), minlength=5)[kept]
    assert float(((numbers - shares[kept] * 3000) ** 2 / (shares[kept] * 3000)).sum()) < CHI_SQUARE_4


def test_a_rows_draws_depend_on_its_seed_alone():
    scores = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    together = drawn(scores, [*range(6)], 9, top_k=20)
    for row in range(6):
        alone = drawn(scores[row : row + 1], [row], 9, top_k=20)
        assert torch.equal(alone[0], together[row])
    assert torch.equal(drawn(scores, [*range(6)], 30, top_k=20)[:, :9], together)
    assert not torch.equal(drawn(scores, [*range(6, 12)], 9, top_k=20), together)


def test_temperature_zero_takes_the_likeliest():
    scores = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn(scores, [*range(6)], 2, temperature=0.0), scores.argmax(-1)[:, None].expand(-1, 2))


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_an_option_out_of_its_bounds_is_named(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name}={value} .*must be|{name}={value} >= 1|{name}={value} in"):
        SeededSampling([1], 1, **options)
