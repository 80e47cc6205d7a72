"""Each estimator against torch's own Gumbel-softmax, dense mixtures and finite differences."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from torch import Tensor

from style_adapter.estimators import gumbel_embeddings, sample_tokens, sampled_embeddings, soft_embeddings
from style_adapter.functional import straight_through_embeddings
from style_adapter.seeds import gumbel_tokens, row_seed

TOKENS, VOCAB, DIM = 5, 9, 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that depend on the seed alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slope(function, logits: Tensor, toward: Tensor) -> Tensor:
    """d <function(logits), toward> / d logits."""
    leaf = logits.clone().requires_grad_()
    (function(leaf) * toward).sum().backward()
    return leaf.grad


def dense_top_k(logits: Tensor, table: Tensor, k: int, temperature: float) -> Tensor:
    """softmax over the k likeliest tokens @ table, by masking all others."""
    least = logits.topk(k).values[:, -1:]
    return (logits / temperature).masked_fill(logits < least, -torch.inf).softmax(-1) @ table


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_gumbel_embeddings_equal_torchs_hard_gumbel_softmax_forward_and_backward(temperature):
    logits, table, toward = 2 * normal(TOKENS, VOCAB), normal(VOCAB, DIM, seed=1), normal(TOKENS, DIM, seed=2)
    noise = gumbel_tokens([1234], [TOKENS], VOCAB)

    def torchs(x: Tensor) -> Tensor:
        torch.manual_seed(1234)
        return F.gumbel_softmax(x, tau=temperature, hard=True) @ table

    ours = gumbel_embeddings(logits, table, noise, temperature=temperature)
    torch.testing.assert_close(ours, torchs(logits))
    assert torch.equal(ours, table[(logits + noise).argmax(-1)])
    found = slope(lambda x: gumbel_embeddings(x, table, noise, temperature=temperature), logits, toward)
    torch.testing.assert_close(found, slope(torchs, logits, toward), rtol=1e-5, atol=1e-6)
    assert found.abs().max() > 0


def test_gumbel_embeddings_of_half_precision_logits_keep_the_noise_in_fp32():
    logits, table, noise = normal(TOKENS, VOCAB).bfloat16(), normal(VOCAB, DIM), gumbel_tokens([0], [TOKENS], VOCAB)
    assert torch.equal(gumbel_embeddings(logits, table, noise), gumbel_embeddings(logits.float(), table, noise))
    assert slope(lambda x: gumbel_embeddings(x, table, noise), logits, normal(TOKENS, DIM)).dtype == torch.bfloat16


def test_soft_embeddings_are_the_mixture():
    logits, table = normal(TOKENS, VOCAB), normal(VOCAB, DIM, seed=1)
    torch.testing.assert_close(soft_embeddings(logits, table, temperature=0.7), (logits / 0.7).softmax(-1) @ table)


@pytest.mark.parametrize("k", [None, 4])
def test_soft_embeddings_pass_finite_differences(k):
    logits, table = normal(TOKENS, VOCAB).double().requires_grad_(), normal(VOCAB, DIM, seed=1).double()
    assert torch.autograd.gradcheck(lambda x: soft_embeddings(x, table, temperature=0.7, top_k=k), (logits,))


@pytest.mark.parametrize("k", [2, 4, VOCAB])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_soft_embeddings_over_the_likeliest_equal_a_masked_softmax_forward_and_backward(k, temperature):
    logits, table, toward = normal(TOKENS, VOCAB), normal(VOCAB, DIM, seed=1), normal(TOKENS, DIM, seed=2)

    def ours(x: Tensor) -> Tensor:
        return soft_embeddings(x, table, temperature=temperature, top_k=k)

    def dense(x: Tensor) -> Tensor:
        return dense_top_k(x, table, k, temperature)

    torch.testing.assert_close(ours(logits), dense(logits))
    found = slope(ours, logits, toward)
    torch.testing.assert_close(found, slope(dense, logits, toward))
    assert (found != 0).sum(-1).tolist() == [k] * TOKENS


def test_soft_embeddings_over_more_tokens_than_there_are_are_those_over_all():
    logits, table = normal(TOKENS, VOCAB), normal(VOCAB, DIM, seed=1)
    torch.testing.assert_close(soft_embeddings(logits, table, top_k=1000), soft_embeddings(logits, table))


@pytest.mark.parametrize("k", [0, 1])
def test_fewer_than_two_tokens_are_refused_as_nothing_could_be_learnt(k):
    with pytest.raises(ValueError, match=f"top_k={k} must be >= 2, or no token could gain on another"):
        soft_embeddings(normal(1, VOCAB), normal(VOCAB, DIM), top_k=k)


@pytest.mark.parametrize("k", [3, None])
def test_sampled_embeddings_are_those_of_the_tokens_bit_by_bit_with_the_gradient_of_the_mixture(k):
    logits, table, toward = normal(TOKENS, VOCAB), normal(VOCAB, DIM, seed=1), normal(TOKENS, DIM, seed=2)
    tokens = torch.tensor([0, 8, 3, 3, 1])
    assert torch.equal(sampled_embeddings(tokens, logits, table, top_k=k), table[tokens])
    found = slope(lambda x: sampled_embeddings(tokens, x, table, top_k=k, temperature=0.5), logits, toward)
    expected = slope(lambda x: soft_embeddings(x, table, top_k=k, temperature=0.5), logits, toward)
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0


def test_sampled_embeddings_of_the_likeliest_tokens_are_the_straight_through_ones():
    logits, table, toward = normal(TOKENS, VOCAB), normal(VOCAB, DIM, seed=1), normal(TOKENS, DIM, seed=2)

    def ours(x: Tensor) -> Tensor:
        return sampled_embeddings(x.argmax(-1), x, table, top_k=None)

    assert torch.equal(ours(logits), straight_through_embeddings(logits, table))
    straight = slope(lambda x: straight_through_embeddings(x, table), logits, toward)
    torch.testing.assert_close(slope(ours, logits, toward), straight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tables_give_half_precision_embeddings_and_gradients(dtype):
    logits, table = normal(TOKENS, VOCAB).to(dtype), normal(VOCAB, DIM, seed=1).to(dtype)
    toward = normal(TOKENS, DIM, seed=2).to(dtype)
    for function in (
        lambda x: soft_embeddings(x, table, top_k=4),
        lambda x: sampled_embeddings(x.argmax(-1), x, table, top_k=4),
    ):
        assert function(logits).dtype == dtype
        expected = slope(lambda x: dense_top_k(x, table.float(), 4, 1.0), logits.float(), toward.float())
        torch.testing.assert_close(slope(function, logits, toward).float(), expected, rtol=0.05, atol=0.05)


def test_no_estimator_gives_the_embeddings_a_gradient():
    logits, table = normal(TOKENS, VOCAB).requires_grad_(), normal(VOCAB, DIM, seed=1).requires_grad_()
    noise, tokens = gumbel_tokens([0], [TOKENS], VOCAB), torch.arange(TOKENS)
    written = [gumbel_embeddings(logits, table, noise), soft_embeddings(logits, table)]
    written += [soft_embeddings(logits, table, top_k=3), sampled_embeddings(tokens, logits, table)]
    for embedded in written:
        embedded.sum().backward()
    assert table.grad is None
    assert logits.grad is not None


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_sampled_tokens_follow_the_softmax_over_the_likeliest(temperature):
    logits, k, rows = 2 * normal(1, VOCAB), 4, 20_000
    tokens = sample_tokens(logits.expand(rows, VOCAB), gumbel_tokens([3], [rows], k), temperature=temperature)
    counted = torch.bincount(tokens, minlength=VOCAB) / rows
    expected = dense_top_k(logits, torch.eye(VOCAB), k, temperature)[0]
    assert (counted - expected).abs().max() < 0.015
    assert (counted > 0).sum() == k


def test_sampled_tokens_depend_on_the_row_alone_and_change_with_the_epoch():
    logits, lengths = normal(12, VOCAB), [4, 5, 3]

    def written(rows: list[int], epoch: int) -> list[Tensor]:
        seeds = [row_seed(0, epoch, row, use="gumbel") for row in rows]
        of_rows = torch.cat([logits.split(lengths)[row] for row in rows])
        noise = gumbel_tokens(seeds, [lengths[row] for row in rows], VOCAB)
        return list(sample_tokens(of_rows, noise).split([lengths[row] for row in rows]))

    together = written([0, 1, 2], epoch=0)
    apart = written([2, 0], epoch=0) + written([1], epoch=0)
    assert torch.equal(torch.cat(together), torch.cat([apart[1], apart[2], apart[0]]))
    assert not torch.equal(torch.cat(together), torch.cat(written([0, 1, 2], epoch=1)))
