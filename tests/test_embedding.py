"""Embeddings, adapted: padding, scales, positions, tables that share a weight; against merged plain models."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
import transformers
from conftest import STYLES, VOCAB, WIDTH, _seeded, adapted, bert, gpt2, randomise, t5, token_ids
from kind_fixtures import Around, style_model
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from style_adapter import StyleAdapterConfig

EXACT = {"rtol": 0, "atol": 1e-10}
pytestmark = [  # PEFT's own, about tied tables
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True` and a tied layer is part:UserWarning"),
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied after merging:UserWarning"),
]


@pytest.fixture
def ids() -> Tensor:
    return token_ids(3)


def merged(model: PeftModel, style) -> nn.Module:
    """The plain model with one style merged into it."""
    alone = copy.deepcopy(model)
    with alone.styled(style):
        return alone.merge_and_unload()


def check_rows(model: PeftModel, inputs: dict[str, Tensor], *, one_for_all: tuple[str, ...] = ()) -> None:
    """Each row of a batch in its own style equals that row alone in the plain model with that style merged."""
    with torch.no_grad():
        together = model(**inputs, styles=STYLES).logits
        for i, style in enumerate(STYLES):
            row = {name: x if name in one_for_all else x[i : i + 1] for name, x in inputs.items()}
            expected = merged(model, style)(**row).logits[0]
            torch.testing.assert_close(together[i], expected, rtol=1e-4, atol=2e-5)
            torch.testing.assert_close(model(**row, styles=style).logits[0], expected, rtol=1e-4, atol=2e-5)


# Tables


def test_the_row_of_padding_gets_no_gradient_and_stays_the_bases():
    base = nn.Embedding(7, 6, padding_idx=0).double().requires_grad_(False)
    model = get_peft_model(Around(base), StyleAdapterConfig(styles=list(STYLES), target_modules=["layer"], r=2))
    table = model.get_parameter("base_model.model.layer.style_adapter_A.default.weight")  # [r, 7]
    optimizer, tokens = torch.optim.SGD([table], lr=1.0), torch.tensor([[0, 1, 2], [0, 3, 3]])
    model(tokens, styles=["kjv", "modern"]).sum().backward()
    assert table.grad[:, 0].count_nonzero() == 0
    assert (table.grad[:, 1:4].abs().sum(dim=0) > 0).all()
    assert table.grad[:, 4:].count_nonzero() == 0
    optimizer.step()
    assert model(tokens)[:, 0].count_nonzero() == 0


def test_rows_of_tokens_that_training_never_saw_stay_the_bases_bitwise():
    plain = nn.Embedding(7, 6).double().requires_grad_(False)
    model = get_peft_model(Around(copy.deepcopy(plain)), StyleAdapterConfig(target_modules=["layer"], r=2))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        model(torch.tensor([[1, 2]])).square().sum().backward()
        optimizer.step()
    assert torch.equal(model(torch.tensor([[4, 5]])), plain(torch.tensor([[4, 5]])))
    assert not torch.allclose(model(torch.tensor([[1, 2]])), plain(torch.tensor([[1, 2]])))


def test_tokens_without_a_batch_take_one_style_and_no_list():
    model = style_model(Around(nn.Embedding(7, 6)))
    tokens = torch.tensor([1, 4, 2])
    torch.testing.assert_close(model(tokens, styles="kjv"), merged(model, "kjv")(tokens))
    with pytest.raises(ValueError, match="3 styles for a batch of 1 rows"):
        model(tokens, styles=STYLES)


@pytest.mark.parametrize(
    "base",
    [nn.Embedding(7, 6, max_norm=1.0), type("Normed", (nn.Embedding,), {})(7, 6)],
    ids=["max_norm", "a norm of its own"],
)
def test_a_table_that_normalises_its_rows_raises_with_the_remedy(base):
    if base.max_norm is None:
        base.norm = nn.LayerNorm(6)
    with pytest.raises(ValueError, match=r"matched layer, .* that normalises its rows, .* leave it out of target_modu"):
        style_model(Around(base))


def test_the_layer_shows_what_users_of_a_table_read():
    layer = style_model(Around(nn.Embedding(7, 6, padding_idx=2))).base_model.model.layer
    assert (layer.num_embeddings, layer.embedding_dim, layer.padding_idx) == (7, 6, 2)
    assert layer.weight is layer.get_base_layer().weight


# Tables with a forward of their own


class Shifted(nn.Embedding):
    """Reads two rows further on, and doubles: what OPT and BART do to positions and words."""

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return super().forward(x + 2 + start) * 2


def test_a_forward_of_its_own_does_to_the_update_what_it_does_to_the_table():
    model = style_model(Around(Shifted(11, 6).double()))
    tokens = torch.randint(6, (3, 4))
    layer = model.base_model.model.layer
    a, b, gates = (layer.get_parameter(f"style_adapter_{n}.default.weight") for n in ("A", "B", "gate"))
    output = model(tokens, start=1, styles=STYLES)
    for i in range(3):
        table = layer.base_layer.weight + 1.5 * (b @ torch.diag(gates[i]) @ a).T
        torch.testing.assert_close(output[i], 2 * F.embedding(tokens[i] + 3, table), **EXACT)
    torch.testing.assert_close(merged(model, "kjv")(tokens, start=1)[1], output[1], **EXACT)


def test_threads_do_not_see_one_another_through_a_forward_of_its_own():
    model = style_model(Around(Shifted(11, 6).double()))
    tokens, wrong = torch.randint(6, (1, 4)), []
    expected = {style: model(tokens, styles=style) for style in STYLES}

    def serve(style: str) -> None:
        wrong.extend(1 for _ in range(50) if not torch.equal(model(tokens, styles=style), expected[style]))

    threads = [threading.Thread(target=serve, args=(style,)) for style in STYLES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


SIZES = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
HEADS = {"num_attention_heads": 2, "num_hidden_layers": 1}
OF_A_SIDE = {"layers": 1, "attention_heads": 2, "ffn_dim": 16}
SEQ2SEQ = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in OF_A_SIDE.items()}


def gemma3(**options):
    sizes = {"hidden_size": WIDTH, "intermediate_size": 16, "num_key_value_heads": 1, "head_dim": 8}
    config = transformers.Gemma3TextConfig(**SIZES | HEADS | sizes | {"max_position_embeddings": 64} | options)
    return _seeded(transformers.Gemma3ForCausalLM, config)


def opt():
    sizes = {"hidden_size": WIDTH, "ffn_dim": 16, "word_embed_proj_dim": WIDTH, "dropout": 0.0}
    return _seeded(transformers.OPTForCausalLM, transformers.OPTConfig(**SIZES | HEADS | sizes))


def bart():
    config = transformers.BartConfig(
        **SIZES | SEQ2SEQ, d_model=WIDTH, scale_embedding=True, dropout=0.0, decoder_start_token_id=1
    )
    return _seeded(transformers.BartForConditionalGeneration, config)


def whisper():
    more = {"num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 20, "dropout": 0.0}
    none = {"suppress_tokens": [], "begin_suppress_tokens": []}
    config = transformers.WhisperConfig(**SIZES | SEQ2SEQ | more | none, d_model=WIDTH, decoder_start_token_id=1)
    return _seeded(transformers.WhisperForConditionalGeneration, config)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_gemmas_scaled_table_equals_peft_lora(dtype, tolerance, ids):
    plain = gemma3().to(dtype)
    lora = get_peft_model(copy.deepcopy(plain), LoraConfig(r=4, lora_alpha=8, target_modules=["embed_tokens"]))
    ours = adapted(copy.deepcopy(plain), styles=["one"], target_modules=["embed_tokens"])
    name = "base_model.model.model.embed_tokens"
    with torch.no_grad():
        for letter in "AB":
            theirs = lora.get_parameter(f"{name}.lora_embedding_{letter}.default")
            theirs.copy_(ours.get_parameter(f"{name}.style_adapter_{letter}.default.weight"))
        ours.get_parameter(f"{name}.style_adapter_gate.default.weight").fill_(1.0)
        expected, output = lora.eval()(ids).logits, ours(ids).logits
        assert not torch.allclose(output, plain(ids).logits, atol=0.2)
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance)


def test_gemmas_scaled_table_speaks_each_rows_style(ids):
    check_rows(adapted(gemma3(), target_modules=["embed_tokens", "q_proj"]), {"input_ids": ids})


@pytest.mark.parametrize("family", [opt, bart], ids=lambda f: f.__name__)
def test_positions_that_a_model_counts_itself_speak_each_rows_style(family, ids):
    model = adapted(family(), target_modules=["embed_positions", "embed_tokens", "q_proj"])
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids.flip(0)} if family is bart else {})
    check_rows(model, inputs)


def test_whispers_positions_and_convolutions_speak_each_rows_style(ids):
    model = adapted(whisper(), target_modules=["embed_positions", "embed_tokens", "conv1", "conv2", "v_proj"])
    sound = torch.randn(3, 8, 20)
    check_rows(model, {"input_features": sound, "decoder_input_ids": ids})
    words = model.generate(input_features=sound, styles=STYLES, max_new_tokens=4, num_beams=2, do_sample=False)
    for i, style in enumerate(STYLES):
        alone = merged(model, style).generate(
            input_features=sound[i : i + 1], max_new_tokens=4, num_beams=2, do_sample=False
        )
        assert torch.equal(words[i], alone[0])


# Positions, which all rows share


def test_position_numbers_of_one_row_serve_every_rows_style(ids):
    model = adapted(gpt2(), target_modules=["wpe", "wte", "c_attn"])
    check_rows(model, {"input_ids": ids})
    check_rows(model, {"input_ids": ids, "position_ids": torch.arange(7)[None]}, one_for_all=("position_ids",))
    check_rows(model, {"input_ids": ids, "position_ids": torch.arange(7).expand(3, 7)})


def test_position_numbers_alone_adapted_serve_every_rows_style(ids):
    check_rows(adapted(gpt2(), target_modules=["wpe"]), {"input_ids": ids})


@pytest.mark.parametrize("beams", [1, 2])
def test_generation_with_adapted_positions_equals_each_row_alone(ids, beams):
    model = adapted(gpt2(), target_modules=["wpe", "wte", "c_attn"])
    options = {"max_new_tokens": 5, "do_sample": False, "num_beams": beams}
    together = model.generate(input_ids=ids, styles=STYLES, **options)
    for i, style in enumerate(STYLES):
        alone = model.generate(input_ids=ids[i : i + 1], styles=style, **options)
        assert torch.equal(together[i], alone[0])


def test_a_batch_of_one_row_still_refuses_three_styles():
    model = adapted(gpt2(), target_modules=["wte", "wpe"])
    with pytest.raises(ValueError, match="3 styles for a batch of 1 rows"):
        model(input_ids=token_ids(1), styles=STYLES)


def test_tables_of_an_encoder_speak_each_rows_style(ids):
    names = ["word_embeddings", "position_embeddings", "token_type_embeddings", "query"]
    model = adapted(bert(), target_modules=names, task_type="SEQ_CLS")
    check_rows(model, {"input_ids": ids, "token_type_ids": ids % 2})
    check_rows(model, {"input_ids": ids})


def test_a_model_of_two_inputs_speaks_each_rows_style_in_both(ids):
    sizes = {"hidden_size": WIDTH, "intermediate_size": 16, "projection_dim": 8} | HEADS
    text = {**SIZES, **sizes, "max_position_embeddings": 16, "eos_token_id": 2}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**sizes, "image_size": 8, "patch_size": 4}, projection_dim=8
    )
    names = ["token_embedding", "position_embedding", "patch_embedding", "q_proj"]
    model = adapted(_seeded(transformers.CLIPModel, config), target_modules=names)
    pixels = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        together = model(input_ids=ids, pixel_values=pixels, styles=STYLES)
        for i, style in enumerate(STYLES):
            alone = merged(model, style)(input_ids=ids[i : i + 1], pixel_values=pixels[i : i + 1])
            torch.testing.assert_close(together.text_embeds[i], alone.text_embeds[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(together.image_embeds[i], alone.image_embeds[0], rtol=1e-4, atol=1e-5)


def test_a_number_a_row_takes_that_rows_style():
    class Labelled(nn.Module):
        """A class label [B] beside the tokens [B, T], as class-conditional generators have it."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.label = nn.Embedding(7, 6), nn.Embedding(4, 6)

        def get_input_embeddings(self) -> nn.Module:
            return self.tokens

        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return self.tokens(x) + self.label(label)[:, None]

    config = StyleAdapterConfig(styles=list(STYLES), target_modules=["label"])
    model = randomise(get_peft_model(Labelled(), config)).eval()
    x, label = torch.randint(7, (3, 5)), torch.tensor([0, 2, 3])
    output = model(x, label, styles=STYLES)
    for i, style in enumerate(STYLES):
        expected = merged(model, style)(x[i : i + 1], label[i : i + 1])[0]
        torch.testing.assert_close(output[i], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [3, 7], ids=["as long as the batch", "longer"])
def test_distances_between_tokens_take_one_style_and_no_list(length):
    model = adapted(t5(), target_modules=["relative_attention_bias"])
    ids = token_ids(3, length=length)
    with pytest.raises(ValueError, match=r"3 styles for .*relative_attention_bias, whose inputs are distances between"):
        model(input_ids=ids, decoder_input_ids=ids, styles=STYLES)
    with torch.no_grad():
        output = model(input_ids=ids, decoder_input_ids=ids, styles="kjv").logits
        expected = merged(model, "kjv")(input_ids=ids, decoder_input_ids=ids).logits
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
