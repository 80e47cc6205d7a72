"""Seeds against splitmix64's published outputs and against chance; draws against those of each row alone."""

import pytest
import torch

from style_adapter.seeds import _splitmix64, generator_of, gumbel_tokens, normal_tokens, row_seed

GOLDEN = 0x9E3779B97F4A7C15  # what splitmix64 adds to its state
DRAWS = [normal_tokens, gumbel_tokens]


def test_the_mixer_gives_the_published_outputs_of_splitmix64():
    outputs = [_splitmix64(step * GOLDEN % 2**64) for step in range(3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_row_seeds_stay_what_they_are_from_version_to_version():
    assert row_seed(0, 0, 0) == 1195769770526638388
    assert row_seed(42, 3, 17, use="noise") == 2951140813156826032


def test_row_seeds_differ_between_seeds_epochs_rows_and_uses_also_in_the_bits_torch_takes():
    seeds = [
        row_seed(seed, epoch, row, use=use)
        for seed in range(4)
        for epoch in range(4)
        for row in range(500)
        for use in ("", "noise")
    ]
    assert len(set(seeds)) == len(seeds) == 16_000
    # Chance alone gives n^2 / 2^33 = 0.03 collisions in 32 bits.
    assert len({seed % 2**32 for seed in seeds}) >= len(seeds) - 1
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_swapped_and_negative_numbers_are_other_seeds():
    assert len({row_seed(*numbers) for numbers in [(1, 2, 3), (2, 1, 3), (1, 3, 2), (3, 2, 1), (-1, 2, 3)]}) == 5


def test_each_bit_of_a_row_flips_half_of_the_bits_of_its_seed():
    flips = [
        (row_seed(7, 1, row) ^ row_seed(7, 1, row ^ 1 << bit)).bit_count() for row in range(200) for bit in range(20)
    ]
    assert abs(sum(flips) / len(flips) - 63 / 2) < 0.2


def test_neighbouring_rows_draw_independent_numbers():
    first = torch.stack([torch.rand(2, generator=generator_of(row_seed(0, 0, row))) for row in range(4000)])
    assert abs(first.mean() - 0.5) < 0.02
    correlations = torch.corrcoef(torch.cat([first[:-1], first[1:]], dim=1).T) - torch.eye(4)
    assert correlations.abs().max() < 0.06


@pytest.mark.parametrize("draw", DRAWS)
def test_a_row_draws_the_same_whatever_the_batch_and_leaves_the_global_generator_alone(draw):
    before = torch.get_rng_state()
    together = draw([11, 12, 13], [3, 0, 5], 7)
    alone = [draw([seed], [length], 7) for seed, length in ((11, 3), (12, 0), (13, 5))]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together[3:], draw([13, 11], [5, 3], 7)[:5])
    assert not torch.equal(draw([11], [3], 7), draw([12], [3], 7))
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_have_the_moments_of_their_distributions():
    normal, gumbel = (draw([5], [400], 500).double() for draw in DRAWS)
    assert abs(normal.mean()) < 0.01
    assert abs(normal.var() - 1) < 0.02
    assert abs(gumbel.mean() - 0.5772) < 0.01  # Euler's constant
    assert abs(gumbel.var() - torch.pi**2 / 6) < 0.03
    assert gumbel.isfinite().all()


def test_no_rows_draw_nothing():
    assert gumbel_tokens([], [], 4).shape == (0, 4)


def test_a_seed_for_each_row_is_asked_for():
    with pytest.raises(ValueError, match="seeds of length 1 must be as long as lengths, 2; give one a row"):
        normal_tokens([1], [2, 3], 4)
