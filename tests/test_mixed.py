"""PEFT's mixed batches: each row equals that row alone under its adapter, for our method as for PEFT's LoRA."""

from typing import Any

import pytest
import torch
from conftest import BACKBONES, randomise, token_ids
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

from style_adapter import OFF, Style, StyleAdapterConfig

EXACT = {"rtol": 0, "atol": 1e-9}
NAMES = ["first", "__base__", "second", "first"]
BANKS = {"first": ["modern", "kjv"], "second": ["kjv", "robot"], "third": ["pirate"]}
TASKS = {"llama": "CAUSAL_LM", "gpt2": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM", "bart": "SEQ_2_SEQ_LM", "bert": "SEQ_CLS"}


def bart() -> BartForConditionalGeneration:
    """A BART of two blocks on each side."""
    sizes = {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": 31}
    sizes |= {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "decoder_start_token_id": 1, "eos_token_id": None}
    model = BartForConditionalGeneration(BartConfig(**sizes, **tokens, dropout=0.0, forced_eos_token_id=None))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model.eval()


def several(family: str, method: str = "style", **options: Any) -> PeftModel:
    """A backbone in fp64 with three random adapters, each of other ranks and modules; `first` is active."""
    backbone = bart() if family == "bart" else BACKBONES[family]()
    task = {"task_type": TASKS[family]}
    if method == "style":
        configs = {
            n: StyleAdapterConfig(styles=s, r=i, init_weights=False, **task | options)
            for i, (n, s) in enumerate(BANKS.items(), 2)
        }
    else:
        configs = {n: LoraConfig(r=i, init_lora_weights=False, **task | options) for i, n in enumerate(BANKS, 2)}
    configs["second"].target_modules = "all-linear"
    names = iter(configs)
    model = get_peft_model(backbone, configs[name := next(names)], adapter_name=name)
    for name in names:
        model.add_adapter(name, configs[name])
    randomise(model)
    return model.double().eval()


def under(model: PeftModel, adapter: str, call: Any) -> Any:
    """What `call` gives with one adapter active, or with none."""
    if adapter == "__base__":
        with model.disable_adapter():
            return call()
    model.set_adapter(adapter)
    return call()


def forward(model: PeftModel, ids: Tensor, **options: Any) -> Tensor:
    """Logits without gradient; the decoder of an encoder-decoder reads the ids turned round."""
    config = model.get_base_model().config
    if config.is_encoder_decoder:
        options["decoder_input_ids"] = ids.flip(1)
    with torch.no_grad():
        return model(input_ids=ids, **options).logits


def generated(model: PeftModel, ids: Tensor, **options: Any) -> Tensor:
    """New tokens, greedy unless `options` say otherwise."""
    mask = torch.ones_like(ids)
    new = model.generate(input_ids=ids, attention_mask=mask, **{"max_new_tokens": 5, "do_sample": False} | options)
    return new if model.get_base_model().config.is_encoder_decoder else new[:, ids.shape[1] :]


def each_alone(model: PeftModel, run: Any, ids: Tensor, names: list[str] = NAMES, **rows: Any) -> Tensor:
    """`run` row by row, each under its own adapter; `rows` has one value a row for each option."""
    outputs = []
    for i, (name, row) in enumerate(zip(names, ids, strict=True)):
        own = {} if name == "__base__" else {key: values[i] for key, values in rows.items()}
        outputs.append(under(model, name, lambda row=row, own=own: run(model, row[None], **own)))
    model.set_adapter("first")
    return torch.cat(outputs)


# Adapters alone, beside LoRA


@pytest.mark.parametrize("method", ["style", "lora"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bart", "bert"])
def test_each_row_equals_that_row_alone_under_its_adapter(family, method):
    model, ids = several(family, method), token_ids(4)
    expected = each_alone(model, forward, ids)
    together = forward(model, ids, adapter_names=NAMES)
    torch.testing.assert_close(together, expected, **EXACT)
    assert not torch.allclose(forward(model, ids)[2], expected[2])  # the active adapter says something else


@pytest.mark.parametrize("method", ["style", "lora"])
@pytest.mark.parametrize("family", ["llama", "t5", "bart"])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_generation_of_each_row_equals_that_row_alone_under_its_adapter(family, method, options):
    model, ids = several(family, method), token_ids(1).expand(4, -1)
    expected = each_alone(model, lambda m, r: generated(m, r, **options), ids)
    assert torch.equal(generated(model, ids, adapter_names=NAMES, **options), expected)
    assert len(expected.unique(dim=0)) > 1  # the inputs are equal: it is the adapters that differ


@pytest.mark.parametrize("family", ["llama", "t5", "bart"])
@pytest.mark.parametrize("beams", [1, 4], ids=["sampled", "beams"])
def test_returned_sequences_keep_their_rows_adapter(family, beams):
    model, ids = several(family), token_ids(4)
    options = {"num_return_sequences": 2, "num_beams": beams}
    if beams == 1:  # so cold that sampling is greedy
        options |= {"do_sample": True, "temperature": 1e-5}
    expected = each_alone(model, lambda m, r: generated(m, r, **options), ids)
    assert torch.equal(generated(model, ids, adapter_names=NAMES, **options), expected)


def test_beams_named_by_a_generation_config_repeat_the_rows_too():
    model, ids = several("llama"), token_ids(4)
    expected = generated(model, ids, adapter_names=NAMES, num_beams=3)
    config = GenerationConfig(max_new_tokens=5, do_sample=False, num_beams=3, pad_token_id=0)
    mask = torch.ones_like(ids)
    new = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, adapter_names=NAMES)
    assert torch.equal(new[:, ids.shape[1] :], expected)


@pytest.mark.parametrize("method", ["style", "lora"])
def test_names_choose_among_all_adapters_whichever_are_active(method):
    model, ids = several("llama", method), token_ids(4)
    names = ["third", "second", "__base__", "first"]
    expected = each_alone(model, forward, ids, names)
    for active in (["third"], ["first", "second"]):
        model.base_model.set_adapter(active)
        torch.testing.assert_close(forward(model, ids, adapter_names=names), expected, **EXACT)


@pytest.mark.parametrize("method", ["style", "lora"])
def test_a_batch_of_one_kind_equals_that_kind(method):
    model, ids = several("llama", method), token_ids(3)
    for name in ("__base__", "first", "second"):
        expected = under(model, name, lambda: forward(model, ids))
        torch.testing.assert_close(forward(model, ids, adapter_names=[name] * 3), expected, **EXACT)
        model.set_adapter("third")


@pytest.mark.parametrize("method", ["style", "lora"])
def test_disabled_adapters_stay_disabled_whatever_is_named(method):
    model, ids = several("llama", method), token_ids(4)
    with model.disable_adapter():
        assert torch.equal(forward(model, ids, adapter_names=NAMES), forward(model, ids))


@pytest.mark.parametrize("method", ["style", "lora"])
def test_nothing_of_a_mixed_batch_outlives_it(method):
    model, ids = several("llama", method), token_ids(4)
    before = forward(model, ids)
    forward(model, ids, adapter_names=NAMES)
    assert torch.equal(forward(model, ids), before)
    with pytest.raises(ValueError, match="Length of"):
        forward(model, ids, adapter_names=NAMES[:2])
    if method == "style":  # PEFT's hooks stay after an error, and it is the next call that fails
        assert torch.equal(forward(model, ids), before)


class Convolved(nn.Module):
    """An embedding, a convolution over the sequence and a linear head, as in PEFT's own tests."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.conv1d, self.lin = nn.Embedding(31, 5), nn.Conv1d(5, 6, 3), nn.Linear(6 * 8, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.lin(self.conv1d(self.emb(ids).transpose(1, 2)).flatten(1))


@pytest.mark.parametrize("method", ["style", "lora"])
@pytest.mark.parametrize("targets", [(["emb", "conv1d"], ["emb"]), (["conv1d"], ["lin"]), (["lin"], ["conv1d", "lin"])])
def test_layers_of_other_kinds_and_layers_of_one_adapter_alone(method, targets):
    torch.manual_seed(0)
    make = {
        "style": lambda t: StyleAdapterConfig(target_modules=t, r=4, init_weights=False),
        "lora": lambda t: LoraConfig(target_modules=t, r=4, init_lora_weights=False),
    }[method]
    model = get_peft_model(Convolved(), make(targets[0]), adapter_name="first")
    model.add_adapter("second", make(targets[1]))
    model, ids = randomise(model).double().eval(), token_ids(4, length=10)
    with torch.no_grad():
        expected = torch.cat(
            [under(model, n, lambda row=row: model(row[None])) for n, row in zip(NAMES, ids, strict=True)]
        )
        torch.testing.assert_close(model(ids, adapter_names=NAMES), expected, **EXACT)
        with pytest.raises(ValueError, match="Length of `adapter_names` should be the same as the number of inputs"):
            model(ids, adapter_names=["__base__"] * 3)


# modules_to_save


@pytest.mark.parametrize("method", ["style", "lora"])
def test_each_row_has_the_head_of_its_adapter(method):
    model, ids = several("bert", method), token_ids(4)
    heads = model.get_base_model().classifier.modules_to_save
    with torch.no_grad():
        for i, head in enumerate(heads.values()):
            head.weight.fill_(float(i))
            head.bias.fill_(100.0 * i)
    expected = each_alone(model, forward, ids)
    torch.testing.assert_close(forward(model, ids, adapter_names=NAMES), expected, **EXACT)


@pytest.mark.parametrize(("family", "saved"), [("llama", "lm_head"), ("t5", "wo")])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_each_row_has_the_saved_modules_of_its_adapter_also_in_beams(family, saved, options):
    model, ids = several(family, modules_to_save=[saved]), token_ids(4)
    for i, (name, parameter) in enumerate(model.named_parameters()):
        if ".modules_to_save." in name:
            nn.init.normal_(parameter, std=0.1 + 0.05 * (i % 7))
    expected = each_alone(model, lambda m, r: generated(m, r, **options), ids)
    assert torch.equal(generated(model, ids, adapter_names=NAMES, **options), expected)


# With styles

STYLES = ["kjv", OFF, "robot", {"modern": 0.5, "kjv": 0.25}]


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bart", "bert"])
def test_each_style_is_looked_up_in_the_adapter_of_its_own_row(family):
    model, ids = several(family), token_ids(4)
    expected = each_alone(model, forward, ids, styles=STYLES)
    torch.testing.assert_close(forward(model, ids, adapter_names=NAMES, styles=STYLES), expected, **EXACT)
    with model.styled("modern"):  # what is given in the call wins
        torch.testing.assert_close(forward(model, ids, adapter_names=NAMES, styles=STYLES), expected, **EXACT)
    assert not torch.allclose(expected[0], forward(model, ids, adapter_names=NAMES)[0])


@pytest.mark.parametrize("family", ["llama", "t5", "bart"])
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}], ids=["greedy", "beams", "sequences"]
)
def test_generation_in_a_style_a_row(family, options):
    model, ids = several(family), token_ids(4)
    expected = each_alone(model, lambda m, r, **own: generated(m, r, **options, **own), ids, styles=STYLES)
    assert torch.equal(generated(model, ids, adapter_names=NAMES, styles=STYLES, **options), expected)


def test_one_style_for_all_rows_must_be_known_to_each_adapter():
    model, ids = several("llama"), token_ids(4)
    expected = each_alone(model, forward, ids, styles=["kjv"] * 4)
    for spec in ("kjv", Style({"kjv": 1.0}), {"kjv": 1.0}):
        torch.testing.assert_close(forward(model, ids, adapter_names=NAMES, styles=spec), expected, **EXACT)
    with pytest.raises(ValueError, match="'modern' must be one of the adapter's styles: kjv, robot"):
        forward(model, ids, adapter_names=NAMES, styles="modern")
    off = each_alone(model, forward, ids, ["__base__"] * 4)
    torch.testing.assert_close(forward(model, ids, adapter_names=NAMES, styles=OFF), off, **EXACT)


def test_a_style_of_another_rows_adapter_raises():
    model, ids = several("llama"), token_ids(4)
    with pytest.raises(ValueError, match="'robot' must be one of the adapter's styles: modern, kjv"):
        forward(model, ids, adapter_names=NAMES, styles=["robot", OFF, "robot", "kjv"])
    assert forward(model, ids, adapter_names=NAMES, styles=["kjv", "robot", "robot", "kjv"]).shape[0] == 4


def test_row_numbers_count_in_the_adapter_of_their_row():
    model, ids = several("llama"), token_ids(4)
    expected = each_alone(model, forward, ids, styles=["kjv", OFF, "robot", "modern"])
    for spec in ([1, 0, 1, 0], torch.tensor([1, 0, 1, 0])):
        torch.testing.assert_close(forward(model, ids, adapter_names=NAMES, styles=spec), expected, **EXACT)


def test_styles_addressed_by_adapter_leave_the_others_at_their_default():
    model, ids = several("llama"), token_ids(4)
    robot = each_alone(model, forward, ids, styles=["modern", OFF, "robot", "modern"])
    torch.testing.assert_close(forward(model, ids, adapter_names=NAMES, styles={"second": "robot"}), robot, **EXACT)
    both = each_alone(model, forward, ids, styles=["kjv", OFF, "robot", "modern"])
    spec = {"first": ["kjv", "kjv", "kjv", "modern"], "second": "robot", "third": "pirate"}
    torch.testing.assert_close(forward(model, ids, adapter_names=NAMES, styles=spec), both, **EXACT)


def test_an_outer_styled_holds_for_the_rows_of_the_active_adapter():
    model, ids = several("llama"), token_ids(4)
    expected = each_alone(model, forward, ids, styles=["kjv", OFF, "kjv", "kjv"])
    with model.styled("kjv"):  # of the active adapter alone: the rows of `second` have its default, which is kjv too
        torch.testing.assert_close(forward(model, ids, adapter_names=NAMES), expected, **EXACT)
        torch.testing.assert_close(forward(model, ids[:1]), expected[:1], **EXACT)
    with model.styled({"first": ["modern", "kjv", "kjv", 0.5 * Style({"kjv": 1.0})], "second": "robot"}):
        one_a_row = each_alone(model, forward, ids, styles=["modern", OFF, "robot", {"kjv": 0.5}])
        torch.testing.assert_close(forward(model, ids, adapter_names=NAMES), one_a_row, **EXACT)
    with model.styled(["kjv", "modern"]), pytest.raises(ValueError, match="should be the same as the number of"):
        forward(model, ids, adapter_names=NAMES)


def test_strength_holds_row_by_row():
    model, ids = several("llama"), token_ids(4)
    for strength in (0.5, {"layers.1": 0.25}):
        expected = each_alone(model, forward, ids, styles=STYLES, style_strength=[strength] * 4)
        found = forward(model, ids, adapter_names=NAMES, styles=STYLES, style_strength=strength)
        torch.testing.assert_close(found, expected, **EXACT)


def test_noise_and_features_reach_the_rows_of_their_adapter():
    model = several("llama")
    model.add_adapter("noisy", StyleAdapterConfig(styles=["a", "b"], noise_dim=3, style_dim=2, r=3))
    randomise(model).double().eval()
    ids, z, f = token_ids(4), torch.randn(4, 3), Style({"a": 1.0}, torch.ones(2))
    names, styles = ["noisy", "__base__", "second", "noisy"], [f, OFF, "robot", "b"]
    expected = torch.cat(
        [
            under(
                model,
                n,
                lambda i=i, n=n, s=s: forward(
                    model,
                    ids[i : i + 1],
                    **({} if n == "__base__" else {"styles": s}),
                    **({"style_noise": z[i : i + 1]} if n == "noisy" else {}),
                ),
            )
            for i, (n, s) in enumerate(zip(names, styles, strict=True))
        ]
    )
    found = forward(model, ids, adapter_names=names, styles=styles, style_noise=z)
    torch.testing.assert_close(found, expected, **EXACT)
    assert not torch.allclose(found[0], forward(model, ids, adapter_names=names, styles=styles)[0])
    with pytest.raises(ValueError, match=r"style_noise: one of adapter_names=.* must have noise_dim"):
        forward(model, ids, adapter_names=NAMES, styles=STYLES, style_noise=z)


# Errors, in PEFT's words


def error_of(model: PeftModel, call: Any) -> str:
    """The text of the ValueError that `call` raises."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is what is compared
        call(model)
    return str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: forward(m.train(), token_ids(4), adapter_names=NAMES),
        lambda m: forward(m, token_ids(4), adapter_names=["first", "nobody", "second", "noone"]),
        lambda m: forward(m, token_ids(3), adapter_names=NAMES[:2]),
        lambda m: forward(m, token_ids(3), adapter_names=["first"] * 2),
        lambda m: forward(m, token_ids(2), adapter_names=["__base__"] * 3),
        lambda m: forward(m, token_ids(6), adapter_names=["__base__"] * 3),
        lambda m: generated(m, token_ids(3), adapter_names=NAMES[:2]),
        lambda m: (m.merge_adapter(), forward(m, token_ids(4), adapter_names=NAMES)),
        lambda m: (m.merge_adapter(["second"]), forward(m, token_ids(4), adapter_names=NAMES)),
        lambda m: (m.set_adapter("second"), m.merge_adapter(), forward(m, token_ids(1), adapter_names=["second"])),
    ],
    ids=[
        "training",
        "unknown",
        "length",
        "length of one",
        "length of base",
        "multiple of base",
        "generate",
        "merged",
        "another merged",
        "merged elsewhere",
    ],
)
def test_errors_are_pefts_own(call):
    theirs, ours = error_of(several("llama", "lora"), call), error_of(several("llama"), call)
    assert ours == theirs
    assert "adapter" in ours


def test_the_wrong_number_of_styles_raises():
    model = several("llama")
    with pytest.raises(ValueError, match="3 styles for 4 rows"):
        forward(model, token_ids(4), adapter_names=NAMES, styles=["kjv"] * 3)


@pytest.mark.parametrize("method", ["style", "lora"])
def test_a_merge_behind_the_first_layer_raises_too(method):
    options = {"init_weights": False} if method == "style" else {"init_lora_weights": False}
    config = StyleAdapterConfig if method == "style" else LoraConfig
    model = get_peft_model(Convolved(), config(target_modules=["conv1d"], r=4, **options), adapter_name="first")
    model.add_adapter("second", config(target_modules=["lin"], r=4, **options))
    model.eval().merge_adapter(["second"])
    with pytest.raises(ValueError, match="Cannot pass `adapter_names` when there are merged adapters"):
        model(token_ids(2, length=10), adapter_names=["first", "second"])


def test_a_batch_as_long_as_its_texts_allow_is_still_the_wrong_length():
    model = several("llama")
    ids = token_ids(14, length=7)  # 14 rows are 2 rows of 7 tokens each, as far as numbers go
    with pytest.raises(ValueError, match="but got 2 and 14 respectively"):
        forward(model, ids, adapter_names=["first", "second"])
    with pytest.raises(ValueError, match="2 styles for a batch of 14 rows"):
        forward(model, ids, styles=["modern", "kjv"])
