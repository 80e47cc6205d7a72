"""Convolutions, adapted: every way they pad and group, images without a batch, and what leaves as a LoRA."""

import copy
import itertools

import pytest
import torch
from conftest import STYLES
from kind_fixtures import Around, style_model
from peft import PeftModel
from torch import nn

from style_adapter import export_lora

EXACT = {"rtol": 0, "atol": 1e-10}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
PADDINGS = [(0, "zeros"), (1, "zeros"), ("same", "zeros"), ("valid", "zeros"), (1, "circular"), ("same", "reflect")]
SHAPE = (4, 7, 6, 5)  # of an image: channels and up to three sizes


def convolution(space: int, **options) -> nn.Module:
    torch.manual_seed(2)
    return CONVOLUTIONS[space](4, 6, 3, **options).double().eval()


def merged(model: PeftModel, style) -> nn.Module:
    alone = copy.deepcopy(model)
    with alone.styled(style):
        return alone.merge_and_unload()


@pytest.mark.parametrize(("padding", "mode"), PADDINGS)
@pytest.mark.parametrize("space", [1, 2, 3])
def test_every_padding_group_and_step_equals_a_plain_convolution_with_its_style_merged(space, padding, mode):
    x = torch.randn(3, *SHAPE[: space + 1], dtype=torch.float64)
    for groups, dilation, stride in itertools.product((1, 2), (1, 2), (1, 2)):
        if padding == "same" and stride > 1:
            continue  # torch has no such thing
        options = {"padding": padding, "padding_mode": mode, "groups": groups, "dilation": dilation, "stride": stride}
        model = style_model(Around(convolution(space, **options)))
        output = model(x, styles=STYLES)
        for i, style in enumerate(STYLES):
            torch.testing.assert_close(output[i], merged(model, style)(x[i : i + 1])[0], **EXACT)


@pytest.mark.parametrize("space", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_an_image_without_a_batch_takes_one_style_and_no_list(space, groups):
    model = style_model(Around(convolution(space, groups=groups)))
    x = torch.randn(SHAPE[: space + 1], dtype=torch.float64)
    torch.testing.assert_close(model(x, styles="kjv"), model(x[None], styles="kjv")[0], **EXACT)
    torch.testing.assert_close(model(x, styles="kjv"), merged(model, "kjv")(x), **EXACT)
    with pytest.raises(ValueError, match="4 styles for a batch of 1 rows"):
        model(x, styles=["kjv"] * 4)  # as many as channels


def test_a_rank_that_groups_do_not_divide_raises_with_the_remedy():
    base = nn.Conv1d(6, 6, 3, groups=3)
    with pytest.raises(
        ValueError, match=r"r=4 must be a multiple of groups=3 of the convolution layer; .* rank_pattern"
    ):
        style_model(Around(base))
    assert style_model(Around(base), rank_pattern={"layer": 3})(torch.randn(2, 6, 9)).shape == (2, 6, 7)


def test_the_layer_shows_what_users_of_a_convolution_read():
    layer = style_model(Around(convolution(2, stride=2, dilation=2))).base_model.model.layer
    assert (layer.stride, layer.dilation, layer.kernel_size, layer.in_channels) == ((2, 2), (2, 2), (3, 3), 4)


def test_dropout_hides_parts_of_the_updates_input_alone():
    model = style_model(Around(convolution(1)), dropout=0.5).train()
    x = torch.randn(3, 4, 9, dtype=torch.float64)
    torch.manual_seed(1)
    output = model(x, styles="kjv")
    torch.manual_seed(1)
    hidden = nn.functional.dropout(x, 0.5)
    layer = model.base_model.model.layer
    expected = layer.base_layer(x) + merged(model, "kjv")(hidden) - layer.base_layer(hidden)
    torch.testing.assert_close(output, expected, **EXACT)


# As a LoRA


def test_an_exported_convolution_gives_stock_peft_the_same_output(tmp_path):
    plain = Around(convolution(2, stride=2, padding=1).float())
    model = style_model(copy.deepcopy(plain))
    export_lora(model, tmp_path, style={"kjv": 0.5, "modern": 1.0})
    x = torch.randn(2, 4, 6, 5)
    lora = PeftModel.from_pretrained(plain, tmp_path)
    torch.testing.assert_close(lora(x), model(x, styles={"kjv": 0.5, "modern": 1.0}), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"dilation": 2}, {"padding": 1, "padding_mode": "circular"}, {"groups": 2}], ids=str
)
def test_a_convolution_that_pefts_lora_would_run_otherwise_is_not_exported(options, tmp_path):
    model = style_model(Around(convolution(2, **options)))
    with pytest.raises(ValueError, match=r"convolutions of one group, without dilation, padded with zeros, .* merge_"):
        export_lora(model, tmp_path)
