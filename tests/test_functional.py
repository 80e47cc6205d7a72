"""The maths against loops, closed forms, autograd and finite differences in fp64."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from torch import Tensor

from style_adapter.functional import (
    delta_weight,
    fixed_b,
    gated_update,
    spread,
    straight_through_embeddings,
    style_gate,
)

R, D_IN, D_OUT, ROWS = 3, 5, 6, 4
SHAPES = [(ROWS, D_IN), (ROWS, 7, D_IN), (ROWS, 2, 3, D_IN)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in fp64 that depend on the seed alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def factors() -> tuple[Tensor, Tensor]:
    """A [r, d_in] and B [d_out, r]."""
    return normal(R, D_IN), normal(D_OUT, R, seed=1)


def test_style_gate_equals_the_sum_over_slots():
    ids, weights, table = torch.tensor([[0, 2], [1, 0]]), normal(2, 2, seed=2), normal(3, R, seed=3)
    by_hand = torch.stack([sum(weights[b, m] * table[ids[b, m]] for m in range(2)) for b in range(2)])
    torch.testing.assert_close(style_gate(ids, weights, table), by_hand, rtol=0, atol=1e-12)


def test_style_gate_ignores_the_row_that_pads_an_unused_slot():
    table, weights = normal(3, R), torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    gates = [style_gate(torch.tensor([[1, pad]]), weights, table) for pad in range(3)]
    assert torch.equal(gates[0], gates[1])
    assert torch.equal(gates[0], gates[2])
    used = style_gate(torch.tensor([[1, 2]]), torch.tensor([[0.5, 0.1]], dtype=torch.float64), table)
    assert not torch.equal(gates[0], used)


def test_style_gate_gradient_equals_finite_differences_and_reaches_the_used_rows_alone():
    ids = torch.tensor([[0, 2], [2, 0]])
    weights, table = normal(2, 2, seed=2).requires_grad_(), normal(4, R, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w, t: style_gate(ids, w, t), (weights, table))
    style_gate(ids, weights, table).sum().backward()
    assert table.grad[[0, 2]].abs().min() > 0
    assert table.grad[[1, 3]].count_nonzero() == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [1, ROWS])
def test_gated_update_equals_each_row_times_its_delta_weight(factors, shape, rows):
    a, b = factors
    x, gate = normal(*shape, seed=4), normal(rows, R, seed=5)
    deltas = [delta_weight(a, b, gate[i if rows > 1 else 0], 1.0) for i in range(ROWS)]
    by_hand = torch.stack([row @ delta.T for row, delta in zip(x, deltas, strict=True)])
    torch.testing.assert_close(gated_update(x, a, b, gate), by_hand, rtol=0, atol=1e-12)


def test_gated_update_of_a_single_vector_keeps_its_shape(factors):
    a, b = factors
    x, gate = normal(D_IN, seed=4), normal(1, R, seed=5)
    torch.testing.assert_close(gated_update(x, a, b, gate), delta_weight(a, b, gate[0], 1.0) @ x, rtol=0, atol=1e-12)


def test_gated_update_gradients_equal_finite_differences(factors):
    a, b = factors
    inputs = (normal(2, 3, D_IN, seed=4), a, b, normal(2, R, seed=5))
    assert torch.autograd.gradcheck(gated_update, tuple(t.requires_grad_() for t in inputs))


def test_delta_weight_equals_scaling_b_diag_g_a(factors):
    a, b = factors
    gate = normal(R, seed=5)
    torch.testing.assert_close(delta_weight(a, b, gate, 0.5), 0.5 * b @ torch.diag(gate) @ a, rtol=0, atol=1e-12)
    assert torch.equal(delta_weight(a, b, gate, 0.5), fixed_b(b, gate, 0.5) @ a)


def test_delta_weight_with_gate_one_is_loras(factors):
    a, b = factors
    torch.testing.assert_close(delta_weight(a, b, torch.ones(R).double(), 2.0), 2.0 * b @ a, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3, 4])
def test_spread_puts_rows_first_and_rank_last(dims):
    gate = normal(ROWS, R)
    wide = spread(gate, dims)
    assert wide.shape == (ROWS, *[1] * (dims - 2), R)
    assert torch.equal(wide.reshape(ROWS, R), gate)


def test_straight_through_forward_is_the_embedding_of_the_likeliest_token():
    logits, table = normal(4, 8), normal(8, 3, seed=1)
    assert torch.equal(straight_through_embeddings(logits, table), table[logits.argmax(dim=-1)])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_straight_through_gradient_is_that_of_the_soft_mixture(temperature):
    logits, table, toward = normal(4, 8).float(), normal(8, 3, seed=1).float(), normal(4, 3, seed=2).float()
    hard, soft = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    straight_through_embeddings(hard, table, temperature=temperature).backward(toward)
    (torch.softmax(soft / temperature, dim=-1) @ table).backward(toward)
    torch.testing.assert_close(hard.grad, soft.grad, rtol=1e-5, atol=1e-6)
    assert hard.grad.abs().max() > 0


def test_straight_through_gives_the_embeddings_no_gradient():
    logits, table = normal(4, 8).requires_grad_(), normal(8, 3, seed=1).requires_grad_()
    straight_through_embeddings(logits, table).sum().backward()
    assert table.grad is None
    F.embedding(logits.argmax(dim=-1), table).sum().backward()
    assert table.grad is not None
