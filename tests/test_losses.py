"""Each loss against its formula: closed forms, torch's own losses, finite differences in fp64."""

import itertools

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from style_adapter.adversary import StylePrototypes
from style_adapter.losses import (
    GAMES,
    discounted_returns,
    fake_class_discriminator,
    fake_class_generator,
    feature_matching,
    gradient_penalty,
    instance_noise,
    lookup_game,
    mean_matching,
    mode_seeking,
    reinforce,
    style_cross_entropy,
    style_means,
    token_cross_entropy,
    token_kl,
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


# Divergence from the backbone


def test_token_kl_equals_torchs_divergence_of_categoricals_row_by_row(targets):
    logits, reference = normal(3, 4, 7), normal(3, 4, 7, seed=1)
    rows = token_kl(logits, reference, targets)
    per_token = kl_divergence(Categorical(logits=logits), Categorical(logits=reference))
    torch.testing.assert_close(rows, (per_token * (targets != -100)).sum(-1))
    assert rows[2] == 0
    assert (rows[:2] > 0).all()


def test_token_kl_of_equal_logits_is_zero_with_zero_gradient(targets):
    logits = normal(3, 4, 7).double().requires_grad_()
    rows = token_kl(logits, logits.detach() + 2.0, targets)  # softmax does not see the shift
    torch.testing.assert_close(rows, torch.zeros(3).double(), atol=1e-12, rtol=0)
    (slope,) = torch.autograd.grad(rows.sum(), logits)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-12, rtol=0)


def test_token_kl_lets_words_go_and_punishes_words_the_backbone_would_not_say():
    frozen, target = torch.tensor([[[0.0, 0.0, -20.0]]]), torch.zeros(1, 1, dtype=torch.long)
    one_word_given_up = torch.tensor([[[0.0, -20.0, -20.0]]])
    unlikely_word_said = torch.tensor([[[0.0, 0.0, 0.0]]])
    torch.testing.assert_close(token_kl(one_word_given_up, frozen, target), torch.tensor([2.0]).log())
    assert token_kl(unlikely_word_said, frozen, target) > 5
    assert token_kl(frozen, one_word_given_up, target) > 5  # swapped, the other direction keeps every word


def test_token_kl_of_half_precision_logits_is_computed_in_fp32(targets):
    logits, reference = normal(3, 4, 7).bfloat16(), normal(3, 4, 7, seed=1).bfloat16()
    rows = token_kl(logits, reference, targets)
    torch.testing.assert_close(rows, token_kl(logits.float(), reference.float(), targets), rtol=0, atol=0)


def test_token_kl_passes_finite_differences_in_both_arguments(targets):
    assert gradcheck(lambda p, q: token_kl(p, q, targets), normal(3, 4, 7), normal(3, 4, 7, seed=1))


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


def test_style_means_are_the_means_of_the_rows_of_each_style():
    features, ids = normal(5, 3), torch.tensor([1, 0, 1, 1, 0])
    means = style_means(features, 0.7 * F.one_hot(ids, 3))
    for row, style in zip(means, ids, strict=True):
        torch.testing.assert_close(row, features[ids == style].mean(0))


def test_style_means_of_mixtures_are_mixtures_and_a_row_without_style_neither_counts_nor_gets_one():
    features = normal(4, 3)
    style = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 3.0], [0.0, -1.0]])
    first, second = (features[0] + features[2]) / 2, (features[1] + 3 * features[2]) / 4
    expected = torch.stack([first, second, 0.25 * first + 0.75 * second, torch.zeros(3)])
    torch.testing.assert_close(style_means(features, style), expected)
    assert gradcheck(lambda x: style_means(x, style), features)


def matched_gradient(features: Tensor, means: Tensor, prototypes: Tensor) -> Tensor:
    """d/d features of the mean of `mean_matching` over as many rows as `means` was made of."""
    leaf = features.clone().requires_grad_()
    mean_matching(leaf, means, prototypes).sum().backward()
    return leaf.grad


def test_mean_matching_has_value_and_gradient_of_the_squared_distance_of_means():
    features, ids = normal(6, 4).requires_grad_(), torch.tensor([0, 1, 0, 0, 1, 0])
    style, prototypes = F.one_hot(ids, 2).float(), normal(2, 4, seed=1)[ids]
    # Salimans et al.: one squared distance a style, here weighed by its rows.
    salimans = sum(
        (ids == s).sum() * (features[ids == s].mean(0) - prototypes[ids == s][0]).pow(2).mean() for s in (0, 1)
    )
    rows = mean_matching(features, style_means(features.detach(), style), prototypes)
    torch.testing.assert_close(rows.sum(), salimans)
    torch.testing.assert_close(rows.sum(), feature_matching(style_means(features, style), prototypes).sum())
    (expected,) = torch.autograd.grad(salimans, features)
    torch.testing.assert_close(*torch.autograd.grad(rows.sum(), features), expected)


def test_mean_matching_adds_up_over_any_split_given_the_means_and_not_with_the_means_of_each_part():
    features, style = normal(6, 4), F.one_hot(torch.tensor([0, 1, 0, 0, 1, 0]), 2).float()
    prototypes, means = normal(6, 4, seed=1), style_means(features, style)
    whole = matched_gradient(features, means, prototypes)
    parts = [
        matched_gradient(*part) for part in zip(features.split(2), means.split(2), prototypes.split(2), strict=True)
    ]
    assert torch.equal(torch.cat(parts), whole)
    own_means = [style_means(f, s) for f, s in zip(features.split(2), style.split(2), strict=True)]
    assert not torch.allclose(matched_gradient(features, torch.cat(own_means), prototypes), whole)


def test_mean_matching_lets_rows_differ_where_their_mean_is_right_and_feature_matching_does_not():
    features, style = torch.tensor([[1.0, 2.0], [-1.0, -2.0]]).requires_grad_(), torch.ones(2, 1)
    means, prototypes = style_means(features.detach(), style), torch.zeros(2, 2)
    assert matched_gradient(features.detach(), means, prototypes).count_nonzero() == 0
    (slope,) = torch.autograd.grad(feature_matching(features, prototypes).sum(), features)
    assert slope.count_nonzero() == 4


def test_style_means_are_computed_in_fp32_inside_autocast():
    features, style = normal(4, 3) + 1e-3, torch.ones(4, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = style_means(features, style)
    assert torch.equal(inside, style_means(features, style))


# The class of fakes


def test_fake_class_losses_equal_torch_cross_entropy_with_one_class_more():
    real, fake, ids = normal(4, 3), normal(4, 3, seed=1), torch.tensor([0, 1, 1, 0])
    weights, fakes = 0.5 * F.one_hot(ids, 2), torch.full((4,), 2)
    torch.testing.assert_close(fake_class_generator(fake, weights), F.cross_entropy(fake, ids, reduction="none"))
    expected = F.cross_entropy(real, ids, reduction="none") + F.cross_entropy(fake, fakes, reduction="none")
    torch.testing.assert_close(fake_class_discriminator(real, fake, weights), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_fake_class_losses_of_one_style_are_the_non_saturating_game(scores, smoothing):
    real, fake = scores
    with_fake = [torch.stack([a, torch.zeros(9)], dim=-1) + normal(9, 1, seed=2) for a in scores]
    game, weights = GAMES["non_saturating"], torch.ones(9, 1)
    torch.testing.assert_close(fake_class_generator(with_fake[1], weights), game.generator(real, fake))
    judged = fake_class_discriminator(*with_fake, weights, smoothing=smoothing)
    torch.testing.assert_close(judged, game.discriminator(real, fake, smoothing=smoothing))


def test_fake_class_losses_of_a_row_without_style_leave_its_fake_alone():
    real, fake, weights = normal(2, 3), normal(2, 3, seed=1), torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    assert fake_class_generator(fake, weights)[1] == 0
    judged = fake_class_discriminator(real, fake, weights, smoothing=0.1)
    torch.testing.assert_close(judged[1], F.cross_entropy(fake[1], torch.tensor(2)))
    assert judged[0] > F.cross_entropy(fake[0], torch.tensor(2))


def test_fake_class_losses_pull_opposite_ways_and_pass_finite_differences():
    real, fake, weights = normal(2, 3), normal(2, 3, seed=1), torch.tensor([[1.0, 0.0], [0.3, 0.7]]).double()
    assert gradcheck(lambda x: fake_class_generator(x, weights), fake)
    assert gradcheck(lambda x, y: fake_class_discriminator(x, y, weights, smoothing=0.1), real, fake)
    leaf = fake.double().requires_grad_()
    (upward,) = torch.autograd.grad(fake_class_generator(leaf, weights).sum(), leaf)
    (downward,) = torch.autograd.grad(fake_class_discriminator(real.double(), leaf, weights).sum(), leaf)
    assert (upward[:, 2] > 0).all()
    assert (downward[:, 2] < 0).all()


def test_fake_class_discriminator_refuses_smoothing_out_of_bounds():
    with pytest.raises(ValueError, match=r"smoothing=1.0 must be >= 0 and < 1"):
        fake_class_discriminator(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 1), smoothing=1.0)


# Score function


def test_discounted_returns_equal_their_recursion_and_ignore_padding():
    rewards, mask = normal(3, 6), torch.arange(6)[None] < torch.tensor([[6], [4], [0]])
    rewards = rewards.masked_fill(~mask, torch.nan)
    for discount in (0.0, 0.5, 1.0):
        expected, running = torch.zeros(3, 6), torch.zeros(3)
        for t in reversed(range(6)):
            running = torch.where(mask[:, t], rewards[:, t].nan_to_num() + discount * running, 0.0)
            expected[:, t] = running
        torch.testing.assert_close(discounted_returns(rewards, mask, discount=discount), expected)


@pytest.mark.parametrize("discount", [-0.1, 1.1])
def test_discounted_returns_refuse_a_discount_out_of_bounds(discount):
    with pytest.raises(ValueError, match=f"discount={discount} must be >= 0 and <= 1"):
        discounted_returns(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), discount=discount)


@pytest.mark.parametrize("baseline", [0.0, 0.7, -3.0])
def test_the_expected_gradient_of_reinforce_is_that_of_the_expected_reward_for_every_baseline(baseline):
    # All texts of 3 tokens from a vocabulary of 3, each weighed by its probability: no sampling error.
    logits = normal(3, 3).double().requires_grad_()
    texts = torch.tensor(list(itertools.product(range(3), repeat=3)))
    prefixes = (texts * torch.tensor([9, 3, 1])).cumsum(-1)  # a reward knows the tokens up to its own
    rewards, mask = normal(27, seed=1).double()[prefixes], torch.ones(27, 3, dtype=torch.bool)
    log_probs = logits.log_softmax(-1)[torch.arange(3), texts]
    chance = log_probs.sum(-1).exp()
    (expected,) = torch.autograd.grad((chance * rewards.sum(-1)).sum(), logits, retain_graph=True)
    rows = reinforce(log_probs, discounted_returns(rewards, mask), mask, torch.full((27,), baseline).double())
    (found,) = torch.autograd.grad((chance.detach() * rows).sum(), logits)
    torch.testing.assert_close(-found, expected)


def test_a_good_baseline_lowers_the_variance_of_reinforce():
    logits, generator = normal(4, 5), torch.Generator().manual_seed(0)
    tokens = torch.multinomial(logits.softmax(-1), 500, replacement=True, generator=generator).T  # [500, 4]
    mask, returns = torch.ones(500, 4, dtype=torch.bool), 10 + 0.1 * tokens.float()
    spreads = []
    for baseline in (0.0, returns.mean().item()):
        rows = logits.expand(500, 4, 5).clone().requires_grad_()
        log_probs = rows.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
        reinforce(log_probs, returns, mask, torch.full((500,), baseline)).sum().backward()
        spreads.append(rows.grad.var(0).sum())
    assert spreads[1] < 1e-2 * spreads[0]


def test_reinforce_gives_gradient_to_the_rows_own_tokens_alone():
    log_probs, returns = normal(2, 3).requires_grad_(), normal(2, 3, seed=1).requires_grad_()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    rows = reinforce(log_probs, returns, mask, torch.tensor([1.0, 2.0]))
    slope, of_rewards = torch.autograd.grad(rows.sum(), (log_probs, returns), allow_unused=True)
    assert of_rewards is None
    expected = -(returns.detach() - torch.tensor([[1.0], [2.0]])) * mask
    torch.testing.assert_close(slope, expected)


def test_style_prototypes_of_returns_are_a_moving_average_a_style():
    baseline, style = StylePrototypes(2, 1, rate=0.25), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    for returns in ([2.0, 5.0, 4.0], [7.0, 5.0, 7.0]):
        baseline.update(torch.tensor(returns)[:, None], style)
        baseline.commit()
    assert baseline(style)[:, 0].tolist() == [3 + 0.25 * (7 - 3), 5.0, 4.0]


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


def test_gradient_penalty_of_real_and_fake_rows_is_r1_and_r2(scores):
    weight, real, fake = normal(3), normal(4, 2, 3).requires_grad_(), normal(4, 2, 3, seed=1).requires_grad_()
    for features in (real, fake):
        rows = gradient_penalty(torch.sigmoid((features * weight).sum((1, 2))), features)
        slope = torch.sigmoid((features * weight).sum((1, 2)))
        expected = (slope * (1 - slope)).pow(2) * 2 * weight.pow(2).sum()
        torch.testing.assert_close(rows, expected)


# Instance noise


def test_instance_noise_has_its_standard_deviation_after_the_layer_norm_of_the_discriminator():
    features, noise = 50 * normal(1, 3, 20_000), normal(1, 3, 20_000, seed=1)
    seen = F.layer_norm(instance_noise(features, noise, std=0.1), (20_000,)) - F.layer_norm(features, (20_000,))
    assert (seen.std(-1) - 0.1).abs().max() < 5e-3
    assert torch.equal(instance_noise(features, noise, std=0.0), features)
    torch.testing.assert_close(
        instance_noise(4 * features, noise, std=0.1), 4 * instance_noise(features, noise, std=0.1)
    )


def test_instance_noise_leaves_the_gradient_of_the_features_as_it_is():
    features, toward = normal(2, 3, 4).requires_grad_(), normal(2, 3, 4, seed=2)
    instance_noise(features, normal(2, 3, 4, seed=1), std=0.5).backward(toward)
    assert torch.equal(features.grad, toward)


def test_instance_noise_refuses_a_negative_standard_deviation():
    with pytest.raises(ValueError, match=r"std=-0.1 must be >= 0"):
        instance_noise(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), std=-0.1)
