"""Each loss against its formula: closed forms, torch's own losses, finite differences in fp64."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from torch import Tensor

from style_adapter.losses import (
    GAMES,
    feature_matching,
    gradient_penalty,
    lookup_game,
    mode_seeking,
    style_cross_entropy,
    token_cross_entropy,
)

LABELLED = ("minimax", "non_saturating", "relativistic")


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers that depend on the seed alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradcheck(function, *inputs: Tensor) -> bool:
    """Autograd against finite differences in fp64."""
    return torch.autograd.gradcheck(function, tuple(x.double().requires_grad_() for x in inputs))


@pytest.fixture
def scores() -> tuple[Tensor, Tensor]:
    """Real and fake logits, both ranging over [-4, 4]."""
    return torch.linspace(-4, 4, 9), normal(9, seed=1) * 2


@pytest.fixture
def targets() -> Tensor:
    """Three rows of target tokens: all kept, some ignored, none kept."""
    return torch.tensor([[3, 0, 6, 1], [-100, -100, 2, 5], [-100, -100, -100, -100]])


# Token cross entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_token_cross_entropy_equals_torch_row_by_row(targets, smoothing):
    logits = normal(3, 4, 7)
    rows = token_cross_entropy(logits, targets, label_smoothing=smoothing)
    for row, logit, target in zip(rows[:2], logits, targets, strict=False):
        torch.testing.assert_close(row, F.cross_entropy(logit, target, reduction="sum", label_smoothing=smoothing))


def test_token_cross_entropy_of_a_row_without_targets_is_zero_with_zero_gradient(targets):
    logits = normal(3, 4, 7).requires_grad_()
    rows = token_cross_entropy(logits, targets)
    assert rows[2] == 0
    rows.sum().backward()
    assert logits.grad[2].count_nonzero() == 0
    assert logits.grad[1, :2].count_nonzero() == 0
    assert logits.grad[1, 2:].count_nonzero() == 14


def test_token_cross_entropy_of_a_batch_without_targets_can_be_trained_on():
    logits = normal(2, 3, 5).requires_grad_()
    token_cross_entropy(logits, torch.full((2, 3), -100)).sum().backward()
    assert logits.grad.count_nonzero() == 0


def test_token_cross_entropy_of_half_precision_logits_is_computed_in_fp32(targets):
    logits = normal(3, 4, 7).bfloat16()
    rows = token_cross_entropy(logits, targets)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, token_cross_entropy(logits.float(), targets), rtol=0, atol=0)


def test_token_cross_entropy_passes_finite_differences(targets):
    assert gradcheck(lambda x: token_cross_entropy(x, targets, label_smoothing=0.1), normal(3, 4, 7))


# Games


def test_minimax_is_the_article_formula_in_probabilities(scores):
    real, fake = (a.double() for a in scores)
    d_x, d_gz = torch.sigmoid(real), torch.sigmoid(fake)
    torch.testing.assert_close(GAMES["minimax"].generator(real, fake), torch.log(d_x) + torch.log(1 - d_gz))
    torch.testing.assert_close(GAMES["minimax"].discriminator(real, fake), -torch.log(d_x) - torch.log(1 - d_gz))


def test_minimax_is_zero_sum(scores):
    game = GAMES["minimax"]
    assert torch.equal(game.generator(*scores), -game.discriminator(*scores))


def test_log_games_equal_binary_cross_entropy_with_logits(scores):
    real, fake = scores
    bce, ones, zeros = F.binary_cross_entropy_with_logits, torch.ones(9), torch.zeros(9)
    judged = bce(real, ones, reduction="none") + bce(fake, zeros, reduction="none")
    torch.testing.assert_close(GAMES["minimax"].discriminator(real, fake), judged)
    torch.testing.assert_close(GAMES["non_saturating"].discriminator(real, fake), judged)
    torch.testing.assert_close(GAMES["non_saturating"].generator(real, fake), bce(fake, ones, reduction="none"))
    compared = bce(real - fake, ones, reduction="none")
    torch.testing.assert_close(GAMES["relativistic"].discriminator(real, fake), compared)


@pytest.mark.parametrize("name", LABELLED)
def test_smoothing_is_binary_cross_entropy_to_the_lowered_real_label(name, scores):
    real, fake = scores
    bce, label = F.binary_cross_entropy_with_logits, torch.full((9,), 0.9)
    expected = {
        "relativistic": bce(real - fake, label, reduction="none"),
        "minimax": bce(real, label, reduction="none") + F.softplus(fake),
    }
    expected["non_saturating"] = expected["minimax"]
    torch.testing.assert_close(GAMES[name].discriminator(real, fake, smoothing=0.1), expected[name])


def test_hinge_equals_its_margins():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.5, -0.5])
    assert GAMES["hinge"].discriminator(real, fake).tolist() == [0.0, 2.0, 2.5]
    assert GAMES["hinge"].generator(real, fake).tolist() == [2.0, -0.5, 0.5]


def test_relativistic_sides_mirror_each_other_and_see_differences_only(scores):
    real, fake = scores
    game = GAMES["relativistic"]
    assert torch.equal(game.generator(real, fake), game.discriminator(fake, real))
    torch.testing.assert_close(game.discriminator(real + 3, fake + 3), game.discriminator(real, fake))
    torch.testing.assert_close(game.discriminator(real, real), torch.full((9,), 2.0).log())


@pytest.mark.parametrize("name", GAMES)
def test_generator_raises_fake_scores_and_discriminator_parts_them(name):
    real, fake = torch.tensor([0.3, -0.2]).requires_grad_(), torch.tensor([-0.4, 0.1]).requires_grad_()
    (towards,) = torch.autograd.grad(GAMES[name].generator(real, fake).sum(), fake)
    assert (towards < 0).all()
    on_real, on_fake = torch.autograd.grad(GAMES[name].discriminator(real, fake).sum(), (real, fake))
    assert (on_real < 0).all()
    assert (on_fake > 0).all()


def test_non_saturating_teaches_where_minimax_is_silent():
    fake = torch.tensor([-10.0]).requires_grad_()
    slopes = {}
    for name in ("minimax", "non_saturating"):
        (slope,) = torch.autograd.grad(GAMES[name].generator(torch.zeros(1), fake).sum(), fake)
        slopes[name] = slope.item()
    assert -1e-4 < slopes["minimax"] < 0
    assert slopes["non_saturating"] < -0.99


@pytest.mark.parametrize("name", GAMES)
def test_games_stay_finite_at_extreme_scores(name):
    real = torch.tensor([1e4, -1e4]).requires_grad_()
    fake = torch.tensor([-1e4, 1e4]).requires_grad_()
    rows = GAMES[name].generator(real, fake) + GAMES[name].discriminator(real, fake)
    slopes = torch.autograd.grad(rows.sum(), (real, fake), allow_unused=True)
    assert rows.isfinite().all()
    assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("name", GAMES)
def test_games_pass_finite_differences(name, scores):
    # Shifted off the margins at 1 and -1, where the hinge has no derivative.
    real, fake = scores[0] + 0.05, scores[1]
    assert gradcheck(GAMES[name].generator, real, fake)
    assert gradcheck(GAMES[name].discriminator, real, fake)


def test_unknown_game_lists_the_known_ones():
    with pytest.raises(ValueError, match="game='wgan' must be one of minimax, non_saturating, hinge, relativistic"):
        lookup_game("wgan")
    assert all(lookup_game(name).name == name for name in GAMES)


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_bounds_is_refused(name, smoothing):
    with pytest.raises(ValueError, match=f"smoothing={smoothing} must be >= 0 and < 1"):
        GAMES[name].discriminator(torch.zeros(1), torch.zeros(1), smoothing=smoothing)


def test_hinge_refuses_smoothing_and_names_the_games_that_take_it():
    with pytest.raises(ValueError, match=r"smoothing=0.1 must be 0 in the hinge game.*non_saturating"):
        GAMES["hinge"].discriminator(torch.zeros(1), torch.zeros(1), smoothing=0.1)


# Style features and classes


def test_feature_matching_is_the_mean_squared_error_of_each_row():
    features, prototypes = normal(4, 6), normal(4, 6, seed=1)
    rows = feature_matching(features, prototypes)
    for row, s, s_star in zip(rows, features, prototypes, strict=True):
        torch.testing.assert_close(row, F.mse_loss(s, s_star))
    assert feature_matching(features, features).count_nonzero() == 0


def test_style_cross_entropy_of_a_named_style_equals_class_cross_entropy_at_any_strength():
    logits, ids = normal(4, 3), torch.tensor([2, 0, 1, 1])
    expected = F.cross_entropy(logits, ids, reduction="none")
    for strength in (1.0, 0.3, 2.0):
        torch.testing.assert_close(style_cross_entropy(logits, strength * F.one_hot(ids, 3)), expected)


def test_style_cross_entropy_of_a_mixture_equals_torch_soft_targets():
    logits, weights = normal(2, 3), torch.tensor([[1.4, 0.6, 0.0], [0.1, 0.1, 0.2]])
    expected = F.cross_entropy(logits, weights / weights.sum(-1, keepdim=True), reduction="none")
    torch.testing.assert_close(style_cross_entropy(logits, weights), expected)


def test_style_cross_entropy_gives_no_mass_to_negative_weights_and_zero_to_rows_without_style():
    logits = normal(2, 3).requires_grad_()
    rows = style_cross_entropy(logits, torch.tensor([[1.0, -0.5, 0.0], [0.0, -1.0, 0.0]]))
    torch.testing.assert_close(rows[0], F.cross_entropy(logits[0], torch.tensor(0)))
    assert rows[1] == 0
    (slope,) = torch.autograd.grad(rows[1], logits)
    assert slope.count_nonzero() == 0


def test_style_losses_pass_finite_differences():
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).double()
    assert gradcheck(lambda x: style_cross_entropy(x, weights), normal(2, 2))
    assert gradcheck(feature_matching, normal(2, 5), normal(2, 5, seed=1))


# Diversity


def test_mode_seeking_is_the_quotient_of_mean_distances():
    first, second = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]])
    noise_first, noise_second = torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[0.0, 1.0, 3.0]])
    rows = mode_seeking(first, second, noise_first, noise_second, eps=0.5)
    torch.testing.assert_close(rows, torch.tensor([1.0 / (2.0 + 0.5)]))


def test_mode_seeking_pushes_outputs_apart_and_is_bounded_where_they_coincide():
    first, second = torch.zeros(1, 4, requires_grad=True), torch.full((1, 4), 0.2)
    noise_first, noise_second = normal(1, 3), normal(1, 3, seed=1)
    rows = mode_seeking(first, second, noise_first, noise_second)
    (slope,) = torch.autograd.grad(rows.sum(), first)
    moved = (first - 0.01 * slope.sign()).detach()
    assert mode_seeking(moved, second, noise_first, noise_second) < rows
    equal = mode_seeking(second, second, noise_first, noise_second, eps=0.1)
    torch.testing.assert_close(equal, (noise_first - noise_second).abs().mean(-1) / 0.1)


def test_mode_seeking_passes_finite_differences():
    z1, z2 = normal(2, 3, seed=2).double(), normal(2, 3, seed=3).double()
    assert gradcheck(lambda u, v: mode_seeking(u, v, z1, z2), normal(2, 4), normal(2, 4, seed=1))


# Gradient penalty


def test_gradient_penalty_of_a_linear_score_is_its_squared_weight():
    weight, features = normal(5, 3), normal(4, 5, 3, seed=1).requires_grad_()
    rows = gradient_penalty((features * weight).sum((1, 2)), features)
    torch.testing.assert_close(rows, weight.pow(2).sum().expand(4))


def test_gradient_penalty_of_a_quadratic_score_is_its_closed_form_in_each_row():
    features = normal(4, 5, 3).requires_grad_()
    rows = gradient_penalty(features.pow(2).sum((1, 2)), features)
    torch.testing.assert_close(rows, 4 * features.detach().pow(2).sum((1, 2)))


def test_gradient_penalty_trains_the_weights_behind_the_score():
    def penalty(weight: Tensor) -> Tensor:
        features = normal(2, 3, 4).double().requires_grad_()
        return gradient_penalty(torch.tanh(features @ weight).pow(2).sum(1), features)

    assert gradcheck(penalty, normal(4, seed=1))


def test_gradient_penalty_refuses_features_without_gradient():
    features = normal(2, 3, 4)
    with pytest.raises(ValueError, match=r"features.requires_grad=False must be True.*detach\(\)\.requires_grad_\(\)"):
        gradient_penalty(features.sum((1, 2)), features)
