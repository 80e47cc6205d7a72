"""The replay buffer against the reservoir's theorem, and against one that was never interrupted."""

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from style_adapter.replay import ReplayBuffer
from style_adapter.seeds import row_seed


def fakes(first: int, count: int) -> tuple[list[list[int]], Tensor]:
    """Texts of 1 to 4 tokens that begin with their own number, and weights that tell it too."""
    numbers = range(first, first + count)
    return [[n] * (1 + n % 4) for n in numbers], torch.tensor([[n, -n] for n in numbers]).float().view(-1, 2)


def filled(capacity: int, count: int, seed: int = 0, batch: int = 7) -> ReplayBuffer:
    """A buffer that has seen `count` fakes, `batch` at a time."""
    buffer = ReplayBuffer(capacity, n_styles=2, seed=seed)
    for first in range(0, count, batch):
        buffer.add(*fakes(first, min(batch, count - first)))
    return buffer


def held(buffer: ReplayBuffer) -> list[int]:
    """The numbers of the texts in it, slot by slot."""
    state = buffer.state_dict()
    texts = [text.tolist() for text in state["tokens"].split(state["lengths"].tolist())]
    assert texts == [[text[0]] * (1 + text[0] % 4) for text in texts]
    assert state["weights"].tolist() == [[text[0], -text[0]] for text in texts]
    return [text[0] for text in texts]


def test_a_buffer_holds_everything_until_it_is_full():
    assert held(filled(10, 8)) == list(range(8))
    assert held(filled(10, 10)) == list(range(10))
    assert len(filled(10, 200)) == 10


def test_every_fake_ever_added_is_as_likely_to_be_held():
    counts = torch.zeros(40)
    for seed in range(2000):
        counts[held(filled(8, 40, seed=seed))] += 1
    assert counts.sum() == 8 * 2000
    assert (counts / 2000 - 8 / 40).abs().max() < 0.045  # 5 standard deviations


def test_what_is_held_depends_on_the_order_and_the_seed_and_not_on_the_batches():
    assert held(filled(8, 60, batch=7)) == held(filled(8, 60, batch=60)) == held(filled(8, 60, batch=1))
    assert held(filled(8, 60)) != held(filled(8, 60, seed=1))


def of_two_styles() -> ReplayBuffer:
    """40 texts of one token, the even ones of the first style, the odd ones of the second."""
    buffer = ReplayBuffer(40, n_styles=2)
    buffer.add([[n] for n in range(40)], torch.eye(2)[[n % 2 for n in range(40)]])
    return buffer


def test_draws_are_a_function_of_the_seed_and_style_of_each_row():
    buffer, seeds = of_two_styles(), [row_seed(0, 2, row, use="replay") for row in range(400)]
    weights = torch.eye(2)[[0, 1] * 200]
    texts = buffer.draw(seeds, weights)
    assert texts == buffer.draw(seeds[:50], weights[:50]) + buffer.draw(seeds[50:], weights[50:])
    assert {text[0] for text in texts[::2]} == set(range(0, 40, 2))
    assert {text[0] for text in texts[1::2]} == set(range(1, 40, 2))
    assert texts != buffer.draw([row_seed(0, 3, row, use="replay") for row in range(400)], weights)


def test_a_style_of_which_nothing_is_held_gives_nothing():
    assert of_two_styles().draw([3, 4], torch.tensor([[1.0, 0.0], [0.5, 0.5]])) == [[6], None]
    assert ReplayBuffer(1, n_styles=1).draw([0], torch.ones(1, 1)) == [None]


def test_what_is_drawn_or_given_is_a_copy():
    buffer, (texts, weights) = ReplayBuffer(4, n_styles=2), fakes(0, 2)
    buffer.add(texts, weights)
    wanted = weights.clone()
    texts[0].append(99)
    weights.zero_()
    for text in buffer.draw([0, 0], wanted):
        text.append(99)
    assert held(buffer) == [0, 1]


def test_weights_with_a_gradient_are_kept_without_it():
    buffer, (texts, weights) = ReplayBuffer(4, n_styles=2), fakes(0, 2)
    buffer.add(texts, weights.requires_grad_())
    assert not buffer.state_dict()["weights"].requires_grad


@pytest.mark.parametrize("before", [0, 5, 8, 31])
def test_a_resumed_buffer_goes_on_as_the_uninterrupted_one(before):
    resumed = ReplayBuffer(8, n_styles=2)
    resumed.add(*fakes(1000, 3))  # forgotten at loading
    resumed.load_state_dict(load(save(filled(8, before).state_dict())))
    assert len(resumed) == min(before, 8)
    resumed.add(*fakes(before, 60 - before))
    assert held(resumed) == held(filled(8, 60))
    whole = filled(8, 60).state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.state_dict().items())


def test_a_saved_state_does_not_change_with_the_buffer():
    buffer = filled(8, 20)
    state = buffer.state_dict()
    copies = {name: tensor.clone() for name, tensor in state.items()}
    buffer.add(*fakes(20, 40))
    assert all(torch.equal(state[name], copies[name]) for name in state)
    assert not torch.equal(state["weights"], buffer.state_dict()["weights"])


@pytest.mark.parametrize(("capacity", "n_styles"), [(4, 2), (9, 2), (8, 3)])
def test_a_state_of_another_size_is_refused(capacity, n_styles):
    with pytest.raises(ValueError, match=f"must fit capacity={capacity} and n_styles={n_styles}"):
        ReplayBuffer(capacity, n_styles).load_state_dict(filled(8, 20).state_dict())


def test_empty_buffers_texts_and_capacities_are_refused():
    with pytest.raises(ValueError, match="capacity=0 must be >= 1"):
        ReplayBuffer(0, n_styles=1)
    for texts, rows in (([[1], []], 2), ([[1]], 2)):
        with pytest.raises(ValueError, match="must have at least 1 token and one of the 2 rows of weights each"):
            ReplayBuffer(3, n_styles=1).add(texts, torch.ones(rows, 1))
