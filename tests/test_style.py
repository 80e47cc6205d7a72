"""Styles as vectors: the algebra by hand, codes against one another, the style in force among threads and tasks."""

import asyncio
import copy
import pickle
import threading

import pytest
import torch

from style_adapter import OFF, Style, StyleBank
from style_adapter.style import InForce, StyleCode, StyleContext

CPU = torch.device("cpu")


@pytest.fixture
def bank() -> StyleBank:
    """Three styles with features and noise."""
    return StyleBank(("modern", "kjv", "pirate"), style_dim=2, noise_dim=3)


@pytest.fixture
def context(bank) -> StyleContext:
    """A model's context with one adapter."""
    context = StyleContext()
    context.banks["default"] = bank
    return context


def dense(code: StyleCode, n_styles: int = 3) -> torch.Tensor:
    """The weight of each style in each row, [rows, n_styles]."""
    return torch.zeros(code.ids.shape[0], n_styles).scatter_add_(1, code.ids, code.weights)


# Algebra


def test_mixtures_are_sums_by_name(bank):
    mixture = 0.75 * bank["kjv"] + 0.25 * bank["modern"] - bank["kjv"] / 4
    assert mixture == Style({"kjv": 0.5, "modern": 0.25})
    assert -mixture == mixture * -1 == OFF - mixture


def test_difference_of_a_style_with_itself_has_weight_zero_and_is_not_off(bank):
    nothing = bank["kjv"] - bank["kjv"]
    assert nothing == Style({"kjv": 0.0})
    assert nothing != OFF


def test_features_add_and_scale_like_weights(bank):
    f, g = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
    mixture = 0.5 * Style(features=f) + Style(features=g) + bank["kjv"]
    assert mixture == Style({"kjv": 1.0}, torch.tensor([10.5, 21.0]))
    assert mixture != Style({"kjv": 1.0}, torch.tensor([10.5, 21.5]))
    assert mixture != bank["kjv"]


def test_equal_styles_hash_alike(bank):
    assert len({bank["kjv"], Style({"kjv": 1.0}), 0.5 * bank["kjv"]}) == 2


def test_a_style_does_not_change_with_the_dict_it_was_made_from():
    weights = {"kjv": 1.0}
    style = Style(weights)
    weights["kjv"] = 2.0
    assert style == Style({"kjv": 1.0})


@pytest.mark.parametrize("other", ["kjv", 1, None])
def test_adding_what_is_no_style_raises(bank, other):
    with pytest.raises(TypeError, match="unsupported operand"):
        bank["kjv"] + other


def test_multiplying_styles_raises(bank):
    with pytest.raises(TypeError, match=r"unsupported operand|Type-check error"):  # the latter with types checked
        bank["kjv"] * bank["modern"]


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (OFF, "off"),
        (Style({"a": 1.0}), "a"),
        (Style({"a": 0.7, "b": -0.3}), "0.7*a + -0.3*b"),
        (Style({"a": 1.0}, torch.ones(2)), "a + features"),
    ],
)
def test_str_is_the_mixture_as_a_person_writes_it(style, text):
    assert str(style) == text


def test_style_and_bank_travel_through_pickle_and_deepcopy(bank):
    style = 0.5 * bank["kjv"] + Style(features=torch.ones(2))
    for travel in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        assert travel(style) == style
        assert travel(bank) == bank


# The bank


def test_bank_is_a_mapping_in_the_order_of_its_rows(bank):
    assert list(bank) == ["modern", "kjv", "pirate"]
    assert len(bank) == 3
    assert dict(bank)["kjv"] == Style({"kjv": 1.0})
    assert "kjv" in bank
    assert "klingon" not in bank


def test_names_rows_styles_dicts_and_tensors_make_equal_codes(bank):
    expected = bank.code("kjv")
    for spec in (1, Style({"kjv": 1.0}), {"kjv": 1.0}, ["kjv"], [1], ("kjv",), torch.tensor([1]), expected):
        code = bank.code(spec)
        assert torch.equal(code.ids, expected.ids)
        assert torch.equal(code.weights, expected.weights)


def test_a_list_makes_one_row_each_in_order(bank):
    code = bank.code(["pirate", {"kjv": 0.5, "modern": 0.25}, 0, OFF, ["kjv", "pirate"]])
    expected = torch.tensor([[0, 0, 1], [0.25, 0.5, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]])
    assert torch.equal(dense(code), expected)


def test_one_style_stands_for_all_rows_and_a_list_for_as_many(bank):
    kjv, modern = bank["kjv"], bank["modern"]
    assert bank.rows("kjv") == bank.rows(["kjv"]) == [kjv]
    assert bank.rows("kjv", 3) == bank.rows(["kjv"], 3) == bank.rows({"kjv": 1.0}, 3) == [kjv] * 3
    assert bank.rows(["kjv", 0], 2) == bank.rows(("kjv", "modern")) == [kjv, modern]
    with pytest.raises(ValueError, match="2 styles for 3 rows; give one style for all or one a row"):
        bank.rows(["kjv", "modern"], 3)


def test_aspects_are_the_sum_of_their_styles(bank):
    aspects = {"text_style": ["kjv", "modern"], "visual_style": "pirate", "absent": None}
    assert bank.parse(aspects) == Style({"kjv": 1.0, "modern": 1.0, "pirate": 1.0})
    assert torch.equal(dense(bank.code(aspects)), torch.ones(1, 3))


def test_a_label_is_read_as_the_style_that_it_was_written_of(bank):
    styles = [bank["kjv"], 0.5 * bank["kjv"], bank["kjv"] - 0.25 * bank["pirate"], 0 * bank["modern"], OFF]
    assert [bank.parse(label) for label in bank.labels(styles)] == styles
    odd = StyleBank(("a + b", "2*a", "a", "off"))  # names come first, however they look
    assert [odd.parse(name) for name in odd.names] == [odd[name] for name in odd.names]
    for typo in ("kvj", "2*kvj", "kjv + modem", "x*kjv"):
        with pytest.raises(ValueError, match="must be one of the adapter's styles: modern, kjv, pirate; check the sp"):
            bank.parse(typo)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_row_numbers_of_any_integer_width_are_one_style_a_row(bank, dtype):
    assert torch.equal(dense(bank.code(torch.tensor([2, 0], dtype=dtype))), torch.tensor([[0.0, 0, 1], [1, 0, 0]]))


def test_usual_mixtures_share_one_shape_whatever_their_size():
    bank = StyleBank(tuple("abcdefgh"))
    shapes = {bank.code(spec).ids.shape for spec in ("a", {"a": 1, "b": 2, "c": 3, "d": 4}, OFF, torch.tensor([3]))}
    assert shapes == {(1, 4)}
    assert bank.code(dict.fromkeys("abcdef", 1.0)).ids.shape == (1, 8)


def test_features_make_a_row_of_zeros_where_a_style_has_none(bank):
    f = torch.tensor([1.0, -2.0])
    code = bank.code(["kjv", Style(features=f)])
    assert torch.equal(code.features, torch.stack([torch.zeros(2), f]))
    assert torch.equal(dense(code), torch.tensor([[0.0, 1, 0], [0, 0, 0]]))


def test_code_carries_gradient_to_the_features(bank):
    f = torch.tensor([1.0, -2.0], requires_grad=True)
    bank.code(["kjv", 3.0 * Style(features=f)]).features.sum().backward()
    assert torch.equal(f.grad, torch.full((2,), 3.0))


def test_noise_types_have_their_distribution():
    draw = {t: StyleBank(("a",), noise_dim=4, noise_type=t).sample_noise for t in ("gaussian", "uniform", "none")}
    z = {name: sample(20_000, generator=torch.Generator().manual_seed(0)) for name, sample in draw.items()}
    assert {x.shape for x in z.values()} == {(20_000, 4)}
    assert z["gaussian"].mean().abs() < 0.02
    assert (z["gaussian"].std() - 1).abs() < 0.02
    assert z["gaussian"].abs().max() > 3
    assert z["uniform"].mean().abs() < 0.02
    assert (z["uniform"].std() - 3**-0.5).abs() < 0.02
    assert z["uniform"].abs().max() <= 1
    assert z["none"].count_nonzero() == 0


def test_equal_generators_sample_equal_noise(bank):
    first, again, other = (bank.sample_noise(2, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Errors


def test_unknown_name_as_a_key_raises_key_error(bank):
    with pytest.raises(KeyError, match="'klingon' must be one of the adapter's styles: modern, kjv, pirate; check"):
        bank["klingon"]


@pytest.mark.parametrize("spec", ["klingon", {"klingon": 1.0}, ["kjv", "klingon"], Style({"klingon": 0.5})])
def test_unknown_name_raises_and_lists_the_known_ones(bank, spec):
    with pytest.raises(ValueError, match=r"styles='klingon' must be one of .* modern, kjv, pirate; check the spelling"):
        bank.code(spec)


def test_a_long_list_of_known_names_is_cut():
    with pytest.raises(ValueError, match=r"style19, \.\.\.; check the spelling"):
        StyleBank(tuple(f"style{i}" for i in range(30))).parse("x")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (3, r"styles=3 must be in 0\.\.2"),
        (-1, r"styles=-1 must be in 0\.\.2"),
        (torch.tensor([0, 3]), r"row numbers \[0, 3\] must be in 0\.\.2"),
        (torch.tensor([-1]), r"row numbers \[-1\] must be in 0\.\.2"),
        (torch.tensor(1), r"styles of shape \[\], torch.int64 must be a LongTensor \[batch\]"),
        (torch.tensor([0.5]), r"torch.float32 must be a LongTensor"),
        (torch.tensor([True, False]), r"torch.bool must be a LongTensor"),
        (torch.tensor([], dtype=torch.long), r"styles of shape \[0\]"),
        ([], r"styles=\[\] must name at least one style; give one for the batch or one a row"),
        (Style(features=torch.ones(5)), r"features of shape \[5\] must be \[style_dim\] = \[2\]; use the encoder"),
        (Style(features=torch.ones(1, 2)), r"features of shape \[1, 2\] must be \[style_dim\] = \[2\]; .* one a row"),
    ],
    ids=str,
)
def test_what_names_no_row_raises(bank, spec, text):
    with pytest.raises(ValueError, match=text):
        bank.code(spec)


@pytest.mark.parametrize("spec", [1.5, object(), None])
def test_what_is_no_style_raises_type_error(bank, spec):
    with pytest.raises(TypeError, match="must be a name, a Style, a row number, a dict or a list of these"):
        bank.code(spec)


@pytest.mark.parametrize("shape", [(1, 4), (3,), (3, 3)], ids=str)
def test_noise_that_fits_neither_the_width_nor_the_rows_raises(bank, shape):
    with pytest.raises(ValueError, match=r"noise of shape .* must be \[1 or 2, noise_dim\] = \[1 or 2, 3\]; set noise"):
        bank.code(["kjv", "modern"], noise=torch.zeros(shape))


@pytest.mark.parametrize("rows", [1, 2])
def test_noise_of_one_row_or_one_a_style_is_kept(bank, rows):
    z = torch.randn(rows, 3)
    assert bank.code(["kjv", "modern"], noise=z).noise is z


def test_one_style_takes_noise_of_any_number_of_rows(bank):
    assert bank.code("kjv", noise=torch.zeros(5, 3)).noise.shape == (5, 3)


def test_sampling_noise_without_a_noise_part_raises():
    with pytest.raises(ValueError, match="noise_dim=0 must be >= 1 to sample noise; set noise_dim in StyleAdapter"):
        StyleBank(("a",)).sample_noise(1)


# The style in force


def in_force(context: StyleContext) -> torch.Tensor | None:
    """The weights by style now in force, None for off."""
    code = context.code("default", CPU)
    return None if code is None else dense(code)[0]


def weights(*numbers: float) -> torch.Tensor:
    """What `in_force` gives for a style of these weights."""
    return torch.tensor(numbers)


def test_default_style_is_in_force_where_nothing_was_set(bank, context):
    assert torch.equal(in_force(context), weights(1, 0, 0))
    context.banks["default"] = StyleBank(bank.names, default="pirate")
    assert torch.equal(in_force(context), weights(0, 0, 1))


def test_hold_restores_after_an_error_and_when_nested(bank, context):
    def fail_when_off() -> None:
        with context.hold({"default": None}):
            assert in_force(context) is None
            raise RuntimeError("stop")

    with context.hold({"default": bank.code("kjv")}):
        with pytest.raises(RuntimeError, match="stop"):
            fail_when_off()
        assert torch.equal(in_force(context), weights(0, 1, 0))
    assert torch.equal(in_force(context), weights(1, 0, 0))


def test_hold_adds_to_and_only_replaces_what_is_in_force(bank, context):
    context.add_bank("second", StyleBank(("x", "y")))
    with context.hold({"second": None}):
        with context.hold({"default": None}):
            assert context.code("second", CPU) is None
            assert context.code("default", CPU) is None
        with context.only(InForce({"default": None})):
            assert context.code("second", CPU) is not None
            assert context.code("default", CPU) is None


def test_contexts_of_two_models_do_not_mix(bank, context):
    other = StyleContext()
    other.add_bank("default", bank)
    with context.hold({"default": bank.code("kjv")}), other.hold({"default": bank.code("pirate")}):
        assert torch.equal(in_force(context), weights(0, 1, 0))
        assert torch.equal(in_force(other), weights(0, 0, 1))


def test_threads_see_the_styles_they_set_themselves(bank, context):
    barrier, seen = threading.Barrier(3), {}

    def work(name: str) -> None:
        before = in_force(context)
        with context.hold({"default": bank.code(name)}):
            barrier.wait()  # all three are inside their block at once
            seen[name] = (before, in_force(context))
            barrier.wait()

    with context.hold({"default": None}):
        threads = [threading.Thread(target=work, args=(name,)) for name in bank]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert in_force(context) is None
    for row, name in enumerate(bank):
        assert torch.equal(seen[name][0], weights(1, 0, 0))
        assert torch.equal(seen[name][1], torch.eye(3)[row])


def test_asyncio_tasks_see_the_styles_they_set_themselves(bank, context):
    async def work(name: str) -> torch.Tensor:
        with context.hold({"default": bank.code(name)}):
            await asyncio.sleep(0)  # the others enter their blocks now
            return in_force(context)

    async def main() -> list[torch.Tensor]:
        return await asyncio.gather(*(work(name) for name in bank))

    assert torch.equal(torch.stack(asyncio.run(main())), torch.eye(3))
    assert torch.equal(in_force(context), weights(1, 0, 0))


def test_a_copied_context_is_another_one_with_the_same_banks(bank, context):
    with context.hold({"default": bank.code("kjv")}):
        for twin in (copy.deepcopy(context), pickle.loads(pickle.dumps(context))):
            assert twin.banks == context.banks
            assert torch.equal(in_force(twin), weights(1, 0, 0))


def test_default_code_made_in_inference_mode_serves_training_too(context):
    with torch.inference_mode():
        context.code("default", CPU)
    code = context.code("default", CPU)
    table = torch.ones(3, 2, requires_grad=True)
    (torch.nn.functional.embedding(code.ids, table) * code.weights[..., None]).sum().backward()
    assert torch.equal(table.grad, torch.tensor([[1.0, 1.0], [0, 0], [0, 0]]))


def test_a_code_moves_whole_and_stays_itself_where_it_is(bank):
    code = bank.code(Style({"kjv": 1.0}, torch.ones(2)), noise=torch.ones(1, 3))
    assert code.to(CPU) is code
    moved = code.to(torch.device("meta"))
    assert {t.device.type for t in (moved.ids, moved.weights, moved.features, moved.noise)} == {"meta"}
    assert moved.repeats == code.repeats
