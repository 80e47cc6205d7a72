"""The discriminator, its prototypes and the early exit, against closed forms and full runs of the backbones."""

import multiprocessing
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
import transformers
from torch import Tensor, nn

from style_adapter.adversary import (
    DISCRIMINATORS,
    StyleDiscriminator,
    StylePrototypes,
    find_blocks,
    hidden_after,
    judge_detached,
)
from style_adapter.losses import GAMES, gradient_penalty, style_cross_entropy

BACKBONE_PARAMETERS = 134_515_008  # SmolLM2-135M, whose hidden states are 576 wide
DIM, STYLES = 12, 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that depend on the seed alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def discriminator(**options) -> StyleDiscriminator:
    """A small discriminator, equal at each call; its query is moved off zero so that pooling attends."""
    torch.manual_seed(0)
    built = StyleDiscriminator(DIM, STYLES, width=16, **options)
    nn.init.normal_(built.query)
    return built


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Features of 4 rows of 5 positions with padding left and right, their mask and their styles."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])
    return normal(4, 5, DIM), mask, torch.eye(STYLES)[[0, 1, 0, 1]]


def same(one, other, **tolerance) -> None:
    """Assert that two judgements agree."""
    torch.testing.assert_close(vars(one), vars(other), **tolerance)


# Discriminator


def test_trainable_part_is_far_below_one_percent_of_the_backbone():
    size = sum(p.numel() for p in StyleDiscriminator(576, 2).parameters() if p.requires_grad)
    assert size < 400_000
    assert size / BACKBONE_PARAMETERS < 0.003
    many = sum(p.numel() for p in StyleDiscriminator(576, 1002).parameters())
    assert (many - size) / 1000 == 256 + 257  # a row of E, a row and a bias of the classifier


@pytest.mark.parametrize("options", [{}, {"spectral_norm": True}])
def test_padding_does_not_matter(batch, options):
    features, mask, style = batch
    judge = discriminator(**options).eval()
    expected = judge(features, mask, style)
    for filler in (0.0, 1e4, float("nan")):
        same(judge(features.masked_fill(mask[..., None] == 0, filler), mask.bool(), style), expected)
    longer = F.pad(features, (0, 0, 2, 3), value=7.0), F.pad(mask, (2, 3)), style
    same(judge(*longer), expected)
    unpadded = judge(features[1:2, :3], mask[1:2, :3], style[1:2])
    torch.testing.assert_close(unpadded.realness[0], expected.realness[1])


def test_order_of_positions_does_not_matter_and_rows_do_not_mix(batch):
    judge, order, rows = discriminator(), torch.tensor([3, 1, 4, 0, 2]), torch.tensor([2, 0, 3, 1])
    expected = judge(*batch)
    features, mask, style = batch
    same(judge(features[:, order], mask[:, order], style), expected)
    shuffled = judge(features[rows], mask[rows], style[rows])
    torch.testing.assert_close(shuffled.realness, expected.realness[rows])


def test_pooling_starts_as_the_mean_over_unpadded_positions(batch):
    features, mask, style = batch
    pooled = StyleDiscriminator(DIM, STYLES)(features, mask, style).pooled
    x = F.layer_norm(features, (DIM,))
    for row, positions, kept in zip(pooled, x, mask.bool(), strict=True):
        torch.testing.assert_close(row, positions[kept].mean(0))


def test_a_row_of_padding_alone_stays_finite_in_value_and_gradient(batch):
    features, _, style = batch
    features = features.requires_grad_()
    judgement = discriminator()(features, torch.zeros(4, 5, dtype=torch.bool), style)
    judgement.realness.sum().backward()
    assert judgement.realness.isfinite().all()
    assert features.grad.count_nonzero() == 0


def test_realness_is_linear_in_the_style_and_style_logits_do_not_read_it(batch):
    features, mask, style = batch
    judge = discriminator()
    none = judge(features, mask, torch.zeros_like(style)).realness
    a, b = style, style.flip(-1)
    shift_a, shift_b = (judge(features, mask, s).realness - none for s in (a, b))
    mixed = judge(features, mask, 0.7 * a - 0.2 * b)
    torch.testing.assert_close(mixed.realness - none, 0.7 * shift_a - 0.2 * shift_b)
    assert shift_a.abs().min() > 0
    assert torch.equal(mixed.style_logits, judge(features, mask, a).style_logits)


def test_a_two_way_judge_tells_real_from_fake_whatever_the_style(batch):
    features, mask, style = batch
    judge = discriminator(kind="two_way")
    judged = judge(features, mask, style)
    hidden = judge.body(judged.pooled)
    torch.testing.assert_close(judged.realness, hidden @ judge.realness.weight[0] + judge.realness.bias)
    assert torch.equal(judged.realness, judge(features, mask, style.flip(-1)).realness)
    assert judged.style_logits.shape == (4, STYLES)


def test_with_a_class_of_fakes_realness_is_the_log_odds_of_the_style_against_it(batch):
    features, mask, style = batch
    judged = discriminator(kind="fake_class")(features, mask, style)
    assert judged.style_logits.shape == (4, STYLES + 1)
    probabilities = judged.style_logits.softmax(-1)
    wanted = (probabilities[:, :STYLES] * style).sum(-1)
    torch.testing.assert_close(judged.realness, (wanted / probabilities[:, -1]).log())


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_the_realness_of_a_prefix_is_that_of_the_text_cut_there(batch, kind):
    features, mask, style = batch
    judge = discriminator(kind=kind)
    found = judge.prefixes(features, mask.bool(), style)
    for length in range(1, 6):
        cut = mask * (torch.arange(5) < length)
        rows = cut.any(-1)
        expected = judge(features[rows], cut[rows], style[rows]).realness
        torch.testing.assert_close(found[rows, length - 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_judgement_is_computed_in_fp32_inside_autocast_too(batch, dtype):
    features, mask, style = batch
    judge = discriminator()
    features = features.to(dtype)
    expected = judge(features.float(), mask, style)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        judgement = judge(features, mask, style.to(dtype))
    assert judgement.realness.dtype == judgement.pooled.dtype == torch.float32
    same(judgement, expected, rtol=0, atol=0)


def test_judgement_passes_finite_differences_twice():
    torch.manual_seed(0)
    judge = StyleDiscriminator(4, STYLES, width=5).double()
    mask, style = torch.tensor([[1, 1, 0], [1, 1, 1]]), torch.eye(STYLES).double()

    def realness(features: Tensor) -> Tensor:
        return judge(features, mask, style).realness

    features = normal(2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(realness, features)
    assert torch.autograd.gradgradcheck(realness, features)


def test_r1_through_the_discriminator_reaches_its_weights_and_skips_padding(batch):
    features, mask, style = batch
    judge, features = discriminator(), features.requires_grad_()
    rows = gradient_penalty(judge(features, mask, style).realness, features)
    rows.sum().backward()
    assert (rows > 0).all()
    reached = {name for name, p in judge.named_parameters() if p.grad is not None and p.grad.count_nonzero()}
    assert {"query", "body.0.weight", "body.4.weight", "realness.weight", "styles.weight"} <= reached
    assert features.grad[mask == 0].count_nonzero() == 0


def test_spectral_norm_bounds_every_weight_on_the_way_to_realness():
    judge = discriminator(spectral_norm=True).eval()
    assert not any(isinstance(module, nn.LayerNorm) for module in judge.modules())
    for layer in (judge.body[0], judge.body[4], judge.realness, judge.styles):
        torch.testing.assert_close(torch.linalg.matrix_norm(layer.weight, 2), torch.tensor(1.0), rtol=0.05, atol=0)
    free = discriminator().eval()
    with torch.no_grad():
        free.body[0].weight.mul_(10)
        judge.body[0].parametrizations.weight.original.mul_(10)
    assert torch.linalg.matrix_norm(free.body[0].weight, 2) > 5
    assert torch.linalg.matrix_norm(judge.body[0].weight, 2) < 1.05


@pytest.mark.parametrize("size", [{"dim": 0}, {"n_styles": 0}, {"width": -1}])
def test_sizes_below_one_are_refused_by_name(size):
    (name, value), sizes = *size.items(), {"dim": 4, "n_styles": 2, "width": 8} | size
    with pytest.raises(ValueError, match=f"{name}={value} must be >= 1"):
        StyleDiscriminator(sizes["dim"], sizes["n_styles"], width=sizes["width"])


# The two sides of the game


@pytest.mark.parametrize("options", [{}, {"spectral_norm": True}])
def test_generator_side_leaves_no_gradient_on_the_discriminator_and_its_side_none_on_features(batch, options):
    features, mask, style = batch
    judge, features = discriminator(**options), features.requires_grad_()
    lent = judge_detached(judge, features, mask, style)
    (lent.realness.sum() + lent.style_logits.sum() + lent.pooled.sum()).backward()
    assert all(p.grad is None for p in judge.parameters())
    assert features.grad[mask == 1].count_nonzero() > 0

    features.grad = None
    own = judge(features.detach(), mask, style)
    (own.realness.sum() + own.style_logits.sum() + own.pooled[:, 0].sum()).backward()
    assert features.grad is None
    assert all(p.grad is not None and p.grad.count_nonzero() for p in judge.parameters())


def test_detached_judgement_equals_the_plain_one_and_has_its_gradient(batch):
    features, mask, style = batch
    judge, features = discriminator(), features.requires_grad_()
    plain, lent = judge(features, mask, style), judge_detached(judge, features, mask, style)
    same(lent, plain, rtol=0, atol=0)
    slopes = [torch.autograd.grad(j.realness.sum(), features)[0] for j in (plain, lent)]
    torch.testing.assert_close(*slopes)


def test_both_sides_from_one_pass_give_each_its_own_gradient_in_one_backward(batch):
    features, mask, style = batch
    judge, fake, game = discriminator(), features.requires_grad_(), GAMES["relativistic"]
    real = normal(4, 5, DIM, seed=1)

    def sides() -> tuple[Tensor, Tensor]:
        lent = (judge_detached(judge, x, mask, style).realness for x in (real, fake))
        own = (judge(x.detach(), mask, style).realness for x in (real, fake))
        return game.generator(*lent).sum(), game.discriminator(*own).sum()

    towards_g = torch.autograd.grad(sides()[0], fake)[0]
    towards_d = torch.autograd.grad(sides()[1], judge.query)[0]
    sum(sides()).backward()
    torch.testing.assert_close(fake.grad, towards_g)
    torch.testing.assert_close(judge.query.grad, towards_d)


@pytest.mark.parametrize("name", GAMES)
def test_generator_step_on_features_raises_realness(batch, name):
    features, mask, style = batch
    judge, fake = discriminator(), features.requires_grad_()
    before = judge_detached(judge, fake, mask, style).realness
    real = judge_detached(judge, normal(4, 5, DIM, seed=1), mask, style).realness
    (slope,) = torch.autograd.grad(GAMES[name].generator(real, fake=before).sum(), fake)
    after = judge(fake - 0.01 * slope / slope.norm(dim=(1, 2), keepdim=True), mask, style).realness
    assert (after > before).all()


def toy(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Real and fake rows, their mask and styles: a style moves one direction, being fake another, all in noise."""
    style = torch.eye(STYLES)[torch.arange(count) % STYLES]
    shift = 1.5 * F.pad(style, (0, DIM - STYLES))[:, None]
    real, fake = normal(count, 6, DIM, seed=seed) + shift, normal(count, 6, DIM, seed=seed + 1) + shift
    fake[..., -1] += 1.5
    return real, fake, torch.ones(count, 6, dtype=torch.bool), style


def descend(judge: nn.Module, loss: Tensor) -> None:
    """One step of sign descent: Adam without its averages, and without the seconds its import takes."""
    weights = list(judge.parameters())
    for weight, slope in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
        if slope is not None:
            weight.data -= 0.01 * slope.sign()


@pytest.mark.parametrize("options", [{}, {"spectral_norm": True}])
@pytest.mark.parametrize("name", GAMES)
def test_discriminator_learns_real_from_fake_and_style_from_style(name, options):
    judge = discriminator(**options)
    held_out = toy(200, seed=1000)

    def accuracies() -> tuple[float, float]:
        real, fake, mask, style = held_out
        with torch.no_grad():
            on_real, on_fake = judge(real, mask, style), judge(fake, mask, style)
        ranked = (on_real.realness > on_fake.realness).float().mean().item()
        named = (on_real.style_logits.argmax(-1) == style.argmax(-1)).float().mean().item()
        return ranked, named

    assert max(accuracies()) < 0.8
    for step in range(50):
        real, fake, mask, style = toy(32, seed=2 * step)
        on_real, on_fake = judge(real, mask, style), judge(fake, mask, style)
        rows = GAMES[name].discriminator(on_real.realness, on_fake.realness)
        rows = rows + style_cross_entropy(on_real.style_logits, style)
        descend(judge, rows.mean())
    assert min(accuracies()) > 0.9


def test_projection_learns_which_style_was_asked_for():
    judge = discriminator()
    for step in range(50):
        texts, _, mask, style = toy(32, seed=2 * step)
        right, wrong = judge(texts, mask, style).realness, judge(texts, mask, style.flip(-1)).realness
        descend(judge, GAMES["hinge"].discriminator(right, wrong).mean())
    texts, _, mask, style = toy(200, seed=1000)
    right, wrong = judge(texts, mask, style).realness, judge(texts, mask, style.flip(-1)).realness
    assert ((right > 0) & (wrong < 0)).float().mean() > 0.9


# Prototypes


def test_first_commit_is_the_plain_mean_of_each_style():
    pooled, ids = normal(10, 3), torch.tensor([0, 1, 0, 0, 1, 1, 0, 1, 1, 0])
    prototypes = StylePrototypes(3, 3, rate=0.01)
    for part in (slice(0, 4), slice(4, 10)):
        prototypes.update(pooled[part], F.one_hot(ids[part], 3).float())
    prototypes.commit()
    for s in (0, 1):
        torch.testing.assert_close(prototypes(torch.eye(3)[[s]])[0], pooled[ids == s].mean(0))
    assert prototypes.known(torch.eye(3)).tolist() == [True, True, False]


def test_later_commits_follow_the_closed_form_of_the_running_mean():
    values, rate = [1.0, 5.0, -2.0, 4.0], 0.25
    prototypes, style = StylePrototypes(1, 1, rate=rate), torch.ones(1, 1)
    for value in values:
        prototypes.update(torch.tensor([[value]]), style)
        prototypes.commit()
    powers = [(1 - rate) ** (3 - i) * (1 if i == 0 else rate) for i in range(4)]
    torch.testing.assert_close(prototypes(style).item(), sum(p * v for p, v in zip(powers, values, strict=True)))


def test_a_commit_leaves_styles_it_did_not_meet_bitwise_as_they_were():
    prototypes, pooled = StylePrototypes(2, 3), normal(4, 3)
    prototypes.update(pooled, torch.eye(2)[[0, 1, 0, 1]])
    prototypes.commit()
    before = prototypes(torch.eye(2))
    prototypes.update(pooled[:1], torch.eye(2)[[0]])
    prototypes.commit()
    prototypes.commit()
    after = prototypes(torch.eye(2))
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[0], before[0])


def test_a_mixture_is_the_weighted_mean_of_its_prototypes_and_known_once_all_are():
    prototypes, pooled = StylePrototypes(3, 3), normal(2, 3)
    prototypes.update(pooled, torch.eye(3)[:2])
    prototypes.commit()
    mixture = torch.tensor([[1.4, 0.6, 0.0]])
    torch.testing.assert_close(prototypes(mixture)[0], 0.7 * pooled[0] + 0.3 * pooled[1])
    asked = torch.tensor([[0.7, 0.3, 0.0], [0.7, 0.0, 0.3], [0.5, 0.0, -0.5], [0.0, 0.0, 0.0]])
    assert prototypes.known(asked).tolist() == [True, False, True, False]
    assert prototypes(asked).isfinite().all()


def test_prototypes_take_no_gradient_and_keep_fp32_inside_autocast():
    prototypes, pooled = StylePrototypes(2, 3), normal(4, 3).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prototypes.update(pooled, torch.eye(2)[[0, 0, 0, 1]])
        prototypes.commit()
        means = prototypes(torch.eye(2))
    assert not means.requires_grad
    torch.testing.assert_close(means[0], pooled[:3].mean(0).detach())


def test_features_that_are_not_finite_never_enter_a_prototype():
    prototypes = StylePrototypes(2, 1)
    prototypes.update(torch.tensor([[1.0], [2.0]]), torch.eye(2))
    prototypes.commit()
    prototypes.update(torch.tensor([[float("nan")]]), torch.eye(2)[[0]])
    prototypes.commit()
    assert prototypes(torch.eye(2)).flatten().tolist() == [1.0, 2.0]


def test_prototypes_saved_and_loaded_go_on_alike():
    one, other = StylePrototypes(2, 3), StylePrototypes(2, 3)
    one.update(normal(2, 3), torch.eye(2)[[0, 0]])
    one.commit()
    other.load_state_dict(one.state_dict())
    for prototypes in (one, other):
        prototypes.update(normal(2, 3, seed=1), torch.eye(2))
        prototypes.commit()
    assert torch.equal(one(torch.eye(2)), other(torch.eye(2)))
    assert torch.equal(one.known(torch.eye(2)), other.known(torch.eye(2)))


def test_prototypes_refuse_a_rate_or_a_checkpoint_that_does_not_fit():
    with pytest.raises(ValueError, match=r"rate=0\.0 must be > 0 and <= 1"):
        StylePrototypes(2, 3, rate=0.0)
    with pytest.raises(ValueError, match=r"shape \(3, 3\) must have shape \(2, 3\)"):
        StylePrototypes(2, 3).load_state_dict(StylePrototypes(3, 3).state_dict())


def gather(rank: int, rendezvous: str) -> Tensor:
    """One of two processes: rank 0 meets style 0 alone, rank 1 meets both."""
    # A process that dies must fail the test, not hang it for the usual half hour.
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2, timeout=wait)
    try:
        prototypes, pooled = StylePrototypes(2, 3), normal(5, 3)
        rows = slice(0, 2) if rank == 0 else slice(2, 5)
        prototypes.update(pooled[rows], torch.eye(2)[[0, 0, 0, 1, 1]][rows])
        prototypes.commit()
        return prototypes(torch.eye(2))
    finally:
        dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # the child starts no thread pool
def test_two_processes_commit_the_mean_of_all_their_texts(tmp_path: Path):
    rendezvous = str(tmp_path / "rendezvous")
    other = multiprocessing.get_context("fork").Process(target=gather, args=(1, rendezvous))
    other.start()
    means, pooled = gather(0, rendezvous), normal(5, 3)
    other.join(60)
    assert other.exitcode == 0
    torch.testing.assert_close(means, torch.stack([pooled[:3].mean(0), pooled[3:].mean(0)]))


# Early exit


def llama() -> nn.Module:
    """A causal model with a final norm and rotary positions."""
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2
    )
    return transformers.LlamaForCausalLM(config)


def gpt2() -> nn.Module:
    """A causal model with learned positions."""
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=3, n_head=2))


def bert() -> nn.Module:
    """An encoder whose blocks end in a norm."""
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2
    )
    return transformers.BertModel(config)


def t5() -> nn.Module:
    """An encoder whose blocks return tuples."""
    return transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2)
    )


# What each backbone does to the last block's output before it reports it.
FINAL = {
    llama: lambda model, h: model.model.norm(h),
    gpt2: lambda model, h: model.transformer.ln_f(h),
    bert: lambda model, h: h,
    t5: lambda model, h: model.encoder.final_layer_norm(h),
}
INPUTS = {
    "input_ids": torch.tensor([[4, 9, 2, 7], [3, 5, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
}


@pytest.fixture(params=FINAL, ids=lambda build: build.__name__)
def build(request):
    """A builder of a tiny random backbone."""
    torch.manual_seed(0)
    return request.param


def test_hidden_after_equals_the_hidden_states_of_a_full_run(build):
    model = build().eval()
    blocks = find_blocks(model)
    assert len(blocks) == 3
    full = model(**INPUTS, output_hidden_states=True).hidden_states
    for depth in range(3):
        assert torch.equal(hidden_after(model, blocks, depth, **INPUTS), full[depth])
    last = hidden_after(model, blocks, 3, **INPUTS)
    torch.testing.assert_close(FINAL[build](model, last), full[3])


@pytest.mark.parametrize("depth", [1, 3])
def test_gradient_through_hidden_after_equals_that_of_a_full_run(build, depth):
    model = build().eval()
    embedded = model.get_input_embeddings()(INPUTS["input_ids"]).detach().requires_grad_()
    inputs = {"inputs_embeds": embedded, "attention_mask": INPUTS["attention_mask"]}
    weight = normal(2, 4, 16)
    hidden = hidden_after(model, find_blocks(model), depth, **inputs)
    hidden = FINAL[build](model, hidden) if depth == 3 else hidden
    full = model(**inputs, output_hidden_states=True).hidden_states[depth]
    slopes = [torch.autograd.grad((h * weight).sum(), embedded)[0] for h in (hidden, full)]
    assert slopes[0].count_nonzero() > 0
    torch.testing.assert_close(*slopes)


def test_hidden_after_touches_no_later_block_and_leaves_no_hook_behind(build):
    model = build().eval()
    blocks, runs = find_blocks(model), []
    watches = [block.register_forward_hook(lambda *_, i=i: runs.append(i)) for i, block in enumerate(blocks)]
    watches += [block.register_forward_pre_hook(lambda *_, i=i: runs.append(-i)) for i, block in enumerate(blocks)]
    hidden_after(model, blocks, 2, **INPUTS)
    assert runs == [0, 0, -1, 1]  # block 0 entered and left, block 1 entered and left
    for watch in watches:
        watch.remove()
    for depth in (2, 3):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            hidden_after(model, blocks, depth, input_ids="not a tensor")
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in blocks)
    assert isinstance(model(**INPUTS)[0], Tensor)


class Chain(nn.Module):
    """Blocks called by keyword, beside a longer list of experts in each and a shorter list of another class."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.blocks = nn.ModuleList(Scale() for _ in range(3))
        self.decoder = nn.ModuleList(nn.Identity() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(hidden_states=x)
        return x


class Scale(nn.Module):
    """h -> 2h, with more experts than there are blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Identity() for _ in range(8))

    def forward(self, hidden_states: Tensor) -> Tensor:
        return 2 * hidden_states


def test_blocks_are_the_first_longest_outer_list_and_may_be_called_by_keyword():
    model = Chain()
    assert find_blocks(model) is model.blocks
    assert [hidden_after(model, model.blocks, k, x=torch.ones(1, 1, 1)).item() for k in range(4)] == [1, 2, 4, 8]


def test_an_encoder_decoder_gives_its_encoder():
    config = transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    model = transformers.T5ForConditionalGeneration(config).eval()
    assert find_blocks(model) is model.encoder.block
    hidden = hidden_after(model, find_blocks(model), 1, **INPUTS)
    assert torch.equal(hidden, model.encoder(**INPUTS, output_hidden_states=True).hidden_states[1])


def test_early_exit_errors_name_the_remedy():
    model, x = Chain(), torch.ones(1, 1, 1)
    with pytest.raises(ValueError, match="depth=4 must be between 0 and the number of blocks, 3"):
        hidden_after(model, model.blocks, 4, x=x)
    with pytest.raises(ValueError, match="never came to depth=1; pass blocks of this model"):
        hidden_after(model, model.decoder, 1, x=x)
    with pytest.raises(TypeError, match="hidden states of type NoneType at Scale must be a tensor"):
        hidden_after(model, model.blocks, 0, x=None)
    with pytest.raises(ValueError, match=r"Linear must hold an nn\.ModuleList of blocks of one class, and has none"):
        find_blocks(nn.Linear(2, 2))
