"""torch's MultiheadAttention, adapted: every option it has, and the encoders around it, against merged plain ones."""

import copy

import pytest
import torch
from conftest import STYLES, gradients, randomise
from kind_fixtures import KINDS, Around, style_model, tensors
from peft import get_peft_model
from torch import Tensor, nn

from style_adapter import OFF, StyleAdapterConfig
from style_adapter.layers import StyleMultiheadAttention

# torch's own encoder, our judge, packs padded rows so
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")

EXACT = {"rtol": 0, "atol": 1e-10}
LENGTH, WIDTH, ROWS = 5, 8, 3
ROW_STYLES = ["kjv", {"modern": 0.5, "pirate": -0.25}, "modern"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(**options) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(WIDTH, 2, **options).double().eval().requires_grad_(False)


def merged(model, style) -> nn.Module:
    """The plain module with one style merged into it: the judge, without a line of ours in its forward."""
    alone = copy.deepcopy(model)
    with alone.styled(style):
        return alone.merge_and_unload()


CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
PADDING = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]]).bool()
CALLS = {
    "key_padding_mask": {"key_padding_mask": PADDING},
    "a float padding mask": {"key_padding_mask": normal(ROWS, LENGTH)},
    "attn_mask": {"attn_mask": CAUSAL},
    "a float mask of each head": {"attn_mask": normal(2 * ROWS, LENGTH, LENGTH)},
    "both masks": {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
    "is_causal": {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False},
    "no weights": {"need_weights": False},
    "weights of each head": {"average_attn_weights": False},
}


@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.parametrize("options", [{"batch_first": True}, {}, {"batch_first": True, "add_zero_attn": True}], ids=str)
def test_each_row_equals_a_plain_attention_with_its_style_merged(call, options):
    model = style_model(Around(plain(**options)))
    layer, given = model.base_model.model.layer, CALLS[call]
    x, y, z = (normal(ROWS, LENGTH, WIDTH, seed=i) for i in range(3))
    first = options.get("batch_first", False)
    turn = (lambda t: t) if first else (lambda t: t.transpose(0, 1))
    with model.styled(ROW_STYLES):
        output, weights = layer(turn(x), turn(y), turn(z), **given)
    for i, style in enumerate(ROW_STYLES):
        judge = merged(model, style).layer
        expected, expected_weights = judge(turn(x), turn(y), turn(z), **given)
        torch.testing.assert_close(turn(output)[i], turn(expected)[i], **EXACT)
        if given.get("need_weights", True):
            torch.testing.assert_close(weights[i], expected_weights[i], **EXACT)
        else:
            assert weights is expected_weights is None


@pytest.mark.parametrize("grad", [True, False])
def test_cross_attention_reads_keys_of_another_length(grad):
    model = style_model(Around(plain(batch_first=True)))
    query, memory = normal(ROWS, LENGTH, WIDTH), normal(ROWS, 7, WIDTH, seed=1)
    with torch.set_grad_enabled(grad):
        output = model(query, memory, memory, styles=ROW_STYLES)
        for i, style in enumerate(ROW_STYLES):
            expected = merged(model, style)(query, memory, memory)
            torch.testing.assert_close(output[i], expected[i], **EXACT)


def test_an_input_without_rows_takes_one_style_and_no_list():
    model = style_model(Around(plain()))
    x = normal(LENGTH, WIDTH)
    expected = merged(model, "kjv")(x, x, x)
    output = model(x, x, x, styles="kjv")
    assert output.shape == (LENGTH, WIDTH)
    torch.testing.assert_close(output, expected, **EXACT)
    with pytest.raises(ValueError, match="5 styles for a batch of 1 rows"):
        model(x, x, x, styles=["kjv"] * LENGTH)


def test_equal_masks_of_dropout_equal_a_merged_attention_in_training():
    model = style_model(Around(plain(batch_first=True, dropout=0.4)))
    judge, x = merged(model, "kjv").train(), normal(ROWS, LENGTH, WIDTH)
    torch.manual_seed(1)
    output = model.train()(x, x, x, styles="kjv")
    torch.manual_seed(1)
    torch.testing.assert_close(output, judge(x, x, x), **EXACT)
    torch.manual_seed(2)
    assert not torch.allclose(model(x, x, x, styles="kjv"), output)


def test_the_layer_shows_what_users_of_an_attention_read():
    layer = style_model(Around(plain(batch_first=True))).base_model.model.layer
    assert isinstance(layer, StyleMultiheadAttention)
    assert (layer.num_heads, layer.embed_dim, layer.head_dim, layer.batch_first) == (2, WIDTH, 4, True)
    assert layer.in_proj_weight.shape == (3 * WIDTH, WIDTH)
    assert copy.deepcopy(layer).num_heads == 2
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = layer.nonsense


def test_other_sizes_of_keys_raise():
    with pytest.raises(ValueError, match="Only same dim for query/key/value is supported"):
        style_model(Around(nn.MultiheadAttention(WIDTH, 2, kdim=4)))


# torch's encoders, which read the bare weights of their parts where no gradient is wanted


def encoder(layers: int = 2, **options) -> nn.TransformerEncoder:
    torch.manual_seed(4)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True, **options)
    stack = nn.TransformerEncoder(layer, layers).double().eval().requires_grad_(False)
    for parameter in stack.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.4)
    return stack


def adapted_encoder(stack: nn.Module, targets: list[str]):
    return randomise(get_peft_model(stack, StyleAdapterConfig(styles=list(STYLES), target_modules=targets))).eval()


@pytest.mark.parametrize("targets", [["self_attn"], ["linear1"], ["self_attn", "linear1", "linear2"]], ids=str)
@pytest.mark.parametrize("padding", [None, PADDING], ids=["whole", "padded"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_fused_encoder_speaks_each_rows_style(targets, padding, mode):
    model, x = adapted_encoder(encoder(), targets), normal(ROWS, LENGTH, WIDTH)
    kept = slice(None) if padding is None else ~padding
    with mode():
        output = model(src=x, src_key_padding_mask=padding, styles=ROW_STYLES)
        for i, style in enumerate(ROW_STYLES):
            judge = merged(model, style)(src=x, src_key_padding_mask=padding)
            there = kept if padding is None else kept[i]
            torch.testing.assert_close(output[i][there], judge[i][there], **EXACT)


def fast_ways(stack: nn.Module) -> list[object]:
    names = ("use_nested_tensor", "activation_relu_or_gelu")
    return [vars(module)[name] for module in stack.modules() for name in names if name in vars(module)]


def test_an_encoder_gets_its_fused_way_back_when_unloaded():
    stack, x = encoder(), normal(ROWS, LENGTH, WIDTH)
    before = fast_ways(stack)
    with torch.no_grad():
        expected = stack(x, src_key_padding_mask=PADDING)
        model = adapted_encoder(stack, ["self_attn", "linear1"])
        assert model.base_model.model.use_nested_tensor is False
        off = model(src=x, src_key_padding_mask=PADDING, styles=OFF)
        torch.testing.assert_close(off[~PADDING], expected[~PADDING], **EXACT)
        plain_again = model.unload()
        assert torch.equal(plain_again(x, src_key_padding_mask=PADDING), expected)
    assert fast_ways(plain_again) == before == [True, 1, 1]


def test_an_encoder_without_an_adapted_layer_keeps_its_fused_way():
    both = nn.ModuleDict({"adapted": encoder(1), "other": encoder(1)})
    both.forward = lambda x: both["other"](both["adapted"](x))  # type: ignore[method-assign]
    model = get_peft_model(both, StyleAdapterConfig(target_modules=r"adapted\..*linear1"))
    assert model.base_model.model["adapted"].layers[0].activation_relu_or_gelu == 0
    assert model.base_model.model["other"].layers[0].activation_relu_or_gelu == 1
    assert model.base_model.model["other"].use_nested_tensor


def test_a_decoder_attends_to_itself_and_to_its_memory_in_each_rows_style():
    torch.manual_seed(5)
    layer = nn.TransformerDecoderLayer(WIDTH, 2, 12, batch_first=True).double().eval().requires_grad_(False)
    model = adapted_encoder(layer, ["self_attn", "multihead_attn"])
    x, memory = normal(ROWS, LENGTH, WIDTH), normal(ROWS, 7, WIDTH, seed=1)
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64)
    with torch.no_grad():
        output = model(tgt=x, memory=memory, tgt_mask=mask, tgt_is_causal=True, styles=ROW_STYLES)
        for i, style in enumerate(ROW_STYLES):
            judge = merged(model, style)(tgt=x, memory=memory, tgt_mask=mask, tgt_is_causal=True)
            torch.testing.assert_close(output[i], judge[i], **EXACT)


def test_training_an_encoder_gives_every_tensor_a_gradient():
    model = adapted_encoder(encoder(dropout=0.1), ["self_attn", "linear1", "linear2"]).train()
    model(src=normal(ROWS, LENGTH, WIDTH), styles=list(STYLES)).square().sum().backward()
    assert gradients(model).keys() == tensors(model).keys()


def test_the_output_projection_has_an_update_of_its_own():
    kind = KINDS["attention"]
    model, inputs = style_model(kind.model()), kind.rows(2)
    before = model(*inputs)
    with torch.no_grad():
        model.get_parameter("base_model.model.layer.base_layer.out_proj.style_adapter_B.default.weight").zero_()
    assert not torch.allclose(model(*inputs), before)
