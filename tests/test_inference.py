"""Texts in, texts out: order, empty lines, Unicode, batches; and the way from a saved folder back to a model."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from training_fixtures import (
    PAD,
    SOURCES,
    adapted,
    bert_tagger,
    byte_tokenizer,
    gpt2_classifier,
    gpt2_tagger,
    llama,
    llama_classifier,
    llama_tagger,
    masked_bert,
    randomised,
    t5,
    toy_rows,
    trained_toy,
)
from transformers import BartConfig, BartForConditionalGeneration

from style_adapter import OFF, styles_of
from style_adapter.estimators import sample_tokens
from style_adapter.inference import (
    classify,
    ensure_padding,
    load,
    load_backbone,
    log_likelihoods,
    pad_id,
    tag,
    transfer,
    write,
)
from style_adapter.seeds import gumbel_tokens, row_seed


@pytest.fixture
def trained(tmp_path_factory):
    """A trainer that has learnt the toy."""
    return trained_toy(tmp_path_factory.mktemp("trained"))


def save_backbone(backbone, folder) -> str:
    """The backbone as a folder, named by it."""
    backbone.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


# Transfer


def test_transfer_keeps_order_empty_lines_and_unicode(trained):
    sources = ["日b", "", "cde", "  ", "éa", "ab"]
    loud = transfer(trained.style_model, trained.processing_class, sources, "loud", batch_size=2)
    assert loud == ["日B!", "", "CDE!", "  ", "ÉA!", "AB!"]


def test_each_row_has_its_own_style_whatever_the_batches(trained):
    model, tokenizer, column = trained.style_model, trained.processing_class, toy_rows()
    for batch_size in (1, 3, 32):
        assert transfer(model, tokenizer, column["source"], column["style"], batch_size=batch_size) == column["target"]


def test_without_a_style_the_default_one_is_used_and_off_is_the_backbone(trained):
    model, tokenizer = trained.style_model, trained.processing_class
    assert transfer(model, tokenizer, ["ab"]) == ["AB!"]
    off = transfer(model, tokenizer, ["ab"], OFF, max_new_tokens=5)
    plain = llama().eval()
    ids = tokenizer("ab\n", return_tensors="pt")["input_ids"]
    expected = plain.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=PAD)
    assert off == [tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True).strip()]


def test_beams_find_the_learnt_texts_too(trained):
    found = transfer(trained.style_model, trained.processing_class, SOURCES[:3], ["loud", "calm", "loud"], num_beams=2)
    assert found == ["AB!", "cde.", "FG!"]


@pytest.mark.parametrize("penalty", [-20.0, 0.0, 20.0])
def test_beams_are_ranked_by_the_length_penalty_of_generate(trained, penalty):
    model, tokenizer = trained.style_model, trained.processing_class
    ids = tokenizer("fg\n", return_tensors="pt")["input_ids"]
    options = {"num_beams": 3, "length_penalty": penalty, "max_new_tokens": 6}
    expected = model.generate(
        input_ids=ids, styles="loud", do_sample=False, pad_token_id=PAD, eos_token_id=tokenizer.eos_token_id, **options
    )
    text = tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert transfer(model, tokenizer, ["fg"], "loud", **options) == [text]


def test_threads_that_use_one_model_at_once_get_what_one_alone_gets():
    model, tokenizer = randomised(adapted()).eval(), byte_tokenizer()

    def read(style: str) -> list[float]:
        return log_likelihoods(model, tokenizer, SOURCES, SOURCES[::-1], style, batch_size=2).tolist()

    def rewrite(style: str) -> list[str]:
        return transfer(model, tokenizer, SOURCES, style, batch_size=3)

    jobs = [(work, style) for style in ("loud", "calm") for work in (read, rewrite)]
    expected = [work(style) for work, style in jobs]
    with ThreadPoolExecutor(len(jobs)) as threads:
        for _ in range(5):
            assert [*threads.map(lambda job: job[0](job[1]), jobs)] == expected


def test_transfer_leaves_the_mode_as_it_was(trained):
    model = trained.style_model
    for mode in (True, False):
        model.train(mode)
        transfer(model, trained.processing_class, ["ab"])
        assert model.training is mode
    with pytest.raises(ValueError, match="styles='laud' must be one of"):
        transfer(model, trained.processing_class, ["ab"], "laud")


def test_no_text_gives_no_text(trained):
    assert transfer(trained.style_model, trained.processing_class, []) == []
    assert transfer(trained.style_model, trained.processing_class, ["", ""]) == ["", ""]


def test_as_many_styles_as_rows_are_needed(trained):
    with pytest.raises(ValueError, match="2 styles for 3 rows; give one style for all or one a row"):
        transfer(trained.style_model, trained.processing_class, ["a", "b", "c"], ["loud", "calm"])


def bart():
    """An encoder-decoder with learnt positions, which padding on the left would shift."""
    torch.manual_seed(0)
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64}
    tokens = {"vocab_size": 258, "pad_token_id": PAD, "bos_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 1}
    return BartForConditionalGeneration(BartConfig(**sizes, **heads, **tokens, init_std=0.5, forced_eos_token_id=None))


@pytest.mark.parametrize("kind", [t5, bart])
def test_encoder_decoders_give_a_text_the_same_answer_alone_and_beside_a_longer_one(kind):
    options = {"target_modules": ["q_proj", "v_proj"]} if kind is bart else {}
    sizes = {} if kind is bart else {"initializer_factor": 4.0}  # T5's own start answers everything alike
    model, tokenizer = randomised(adapted(kind(**sizes), task_type="SEQ_2_SEQ_LM", **options)), byte_tokenizer()
    texts = ["ab", "a much longer text", "cd", "efg"]
    together = transfer(model, tokenizer, texts, "calm", max_new_tokens=6)
    assert together == [transfer(model, tokenizer, [text], "calm", max_new_tokens=6)[0] for text in texts]
    assert len(set(together)) > 1


# Writing


def writer(kind: str, **options):
    """A model with a random adapter, so that texts of different styles, samples and noise differ."""
    backbone = t5(initializer_factor=4.0) if kind == "t5" else llama()
    task_type = "SEQ_2_SEQ_LM" if kind == "t5" else "CAUSAL_LM"
    return randomised(adapted(backbone, task_type=task_type, **options))


@pytest.mark.parametrize("noise_dim", [0, 2])
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_sampled_text_is_the_same_in_any_batch(kind, noise_dim):
    model, tokenizer = writer(kind, noise_dim=noise_dim), byte_tokenizer()
    prompts, styles = ["ab", "", "a longer prompt", "cd", "ab"], ["loud", "calm", "loud", "calm", "loud"]
    options = {"samples": 2, "max_new_tokens": 8, "seed": 3}
    together = write(model, tokenizer, prompts, styles, **options)
    for size in (1, 3):  # one text at a time, or both texts of a prompt that is read once
        assert write(model, tokenizer, prompts, styles, batch_size=size, **options) == together
    for row in (1, 2, 4):
        assert write(model, tokenizer, [prompts[row]], styles[row], row_ids=[row], **options) == [together[row]]
    assert [len(texts) for texts in together] == [2] * 5
    assert together[0] != together[4]  # the same prompt and style, another row
    assert together[0][0] != together[0][1]
    assert write(model, tokenizer, prompts, styles, **options | {"seed": 4}) != together
    assert write(model, tokenizer, prompts, styles, **options | {"samples": 3})[2][:2] == together[2]


def test_texts_are_drawn_as_a_pass_by_hand_draws_them():
    model, tokenizer = writer("llama").eval(), byte_tokenizer()
    noise = gumbel_tokens([row_seed(5, 1, 0, use="text")], [6], 20)
    tokens = tokenizer("ab\n")["input_ids"]
    for step in range(6):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens]), styles="calm").logits[:, -1]
        tokens = [*tokens, int(sample_tokens(logits, noise[step : step + 1], temperature=0.7))]
        if tokens[-1] == tokenizer.eos_token_id:
            break
    found = write(model, tokenizer, ["ab"], "calm", samples=2, seed=5, temperature=0.7, top_k=20, max_new_tokens=6)
    assert found[0][1] == tokenizer.decode(tokens[3:], skip_special_tokens=True).strip()


def test_a_temperature_of_zero_writes_what_transfer_does():
    model, tokenizer = writer("llama"), byte_tokenizer()
    greedy = transfer(model, tokenizer, ["ab", "cd"], ["loud", "calm"], max_new_tokens=6)
    assert [
        texts[0] for texts in write(model, tokenizer, ["ab", "cd"], ["loud", "calm"], temperature=0.0, max_new_tokens=6)
    ] == greedy


def test_the_noise_that_is_given_is_the_noise_that_is_used():
    model, tokenizer = writer("llama", noise_dim=2), byte_tokenizer()
    options = {"samples": 2, "max_new_tokens": 8, "temperature": 0.0}
    same = write(model, tokenizer, ["ab", "cd"], "loud", noise=torch.ones(2, 2, 2), **options)
    assert all(one == other for one, other in same)
    noise = torch.ones(2, 2, 2)
    noise[1, 1] = -3.0
    other = write(model, tokenizer, ["ab", "cd"], "loud", noise=noise, **options)
    assert other[0] == same[0]
    assert other[1][0] == same[1][0] != other[1][1]
    with pytest.raises(ValueError, match="noise"):
        write(writer("llama"), tokenizer, ["ab"], "loud", noise=torch.ones(1, 1, 2))


def test_nothing_asked_for_is_nothing_written():
    model, tokenizer = writer("llama"), byte_tokenizer()
    assert write(model, tokenizer, []) == []
    with pytest.raises(ValueError, match="samples=0 and max_new_tokens=128 must be >= 1; 1 and 128 are usual"):
        write(model, tokenizer, ["a"], samples=0)


# Classification


@pytest.mark.parametrize("backbone", [gpt2_classifier, llama_classifier])
def test_classes_do_not_depend_on_the_batch_and_stay_in_order(backbone):
    model = randomised(adapted(backbone(num_labels=5), task_type="SEQ_CLS"))
    texts = ["ab", "c", "defgh", "ij", "klm", "n", "op", "qrs"]
    styles = ["loud", "calm"] * 4
    together = classify(model, byte_tokenizer(), texts, styles, batch_size=3)
    one_by_one = [classify(model, byte_tokenizer(), [t], s)[0] for t, s in zip(texts, styles, strict=True)]
    by_hand = [
        int(model(input_ids=torch.tensor([byte_tokenizer()(t)["input_ids"]]), styles=s).logits.argmax())
        for t, s in zip(texts, styles, strict=True)
    ]
    assert together == one_by_one == by_hand
    assert len(set(together)) > 1
    assert classify(model, byte_tokenizer(), []) == []


@pytest.mark.parametrize("backbone", [bert_tagger, gpt2_tagger, llama_tagger])
def test_classes_of_words_do_not_depend_on_the_batch_and_stay_in_order(backbone):
    model = randomised(adapted(backbone(num_labels=5), task_type="TOKEN_CLS"))
    texts = [["ab", "c"], "defgh ij", [], ["klm", "n", "op"], "q"]
    styles = ["loud", "calm", "loud", "calm", "loud"]
    together = tag(model, byte_tokenizer(), texts, styles, batch_size=3)
    assert together == [tag(model, byte_tokenizer(), [t], s)[0] for t, s in zip(texts, styles, strict=True)]
    assert [len(classes) for classes in together] == [2, 2, 0, 3, 1]
    ids = torch.tensor([byte_tokenizer()("klm n op")["input_ids"]])
    by_hand = model(input_ids=ids, styles="calm").logits.argmax(-1)[0]
    assert together[3] == [int(by_hand[place]) for place in (0, 4, 6)]
    assert len({label for classes in together for label in classes}) > 1
    assert tag(model, byte_tokenizer(), []) == []


@pytest.mark.parametrize("backbone", [bert_tagger, llama_tagger])
def test_the_head_that_sorts_words_trains_whole_and_has_no_adapter(backbone):
    model = adapted(backbone(num_labels=3), task_type="TOKEN_CLS")
    head = "classifier" if backbone is bert_tagger else "score"
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad and head in name]
    assert trained == [f"base_model.model.{head}.modules_to_save.default.{part}" for part in ("weight", "bias")]


# From a folder


def test_a_saved_adapter_loads_with_the_backbone_it_names(tmp_path):
    name = save_backbone(llama(), tmp_path / "base")
    model = randomised(adapted(load_backbone(name)))
    model.save_pretrained(tmp_path / "adapter")
    loaded, tokenizer = load(str(tmp_path / "adapter"))  # no tokenizer beside it: the backbone's
    assert list(styles_of(loaded)) == ["loud", "calm"]
    assert not loaded.training
    for style in ("loud", "calm"):
        found = transfer(loaded, tokenizer, ["ab", "cd"], style, max_new_tokens=4)
        assert found == transfer(model, byte_tokenizer(), ["ab", "cd"], style, max_new_tokens=4)


def test_a_saved_classifier_knows_how_many_classes_it_tells_apart_and_how_to_pad(tmp_path):
    name = save_backbone(llama(pad_token_id=None), tmp_path / "base")
    backbone = load_backbone(name, task_type="SEQ_CLS", num_labels=5)
    ensure_padding(backbone, byte_tokenizer())
    model = randomised(adapted(backbone, task_type="SEQ_CLS"))
    model.save_pretrained(tmp_path / "adapter")
    loaded, tokenizer = load(str(tmp_path / "adapter"))
    texts = ["ab", "c", "defgh", "ij", "klm", "n"]
    assert loaded.config.num_labels == 5
    assert classify(loaded, tokenizer, texts) == classify(model, byte_tokenizer(), texts)


@pytest.mark.parametrize("backbone", [bert_tagger, gpt2_tagger])
def test_a_saved_tagger_knows_how_many_classes_it_tells_apart(tmp_path, backbone):
    name = save_backbone(backbone(), tmp_path / "base")
    model = randomised(adapted(load_backbone(name, task_type="TOKEN_CLS", num_labels=5), task_type="TOKEN_CLS"))
    model.save_pretrained(tmp_path / "adapter")
    loaded, tokenizer = load(str(tmp_path / "adapter"))
    texts = ["ab c", "defgh ij", "klm n op"]
    assert loaded.config.num_labels == 5
    for style in ("loud", "calm"):
        assert tag(loaded, tokenizer, texts, style) == tag(model, byte_tokenizer(), texts, style)


def test_an_adapter_of_a_masked_language_model_loads_with_its_head(tmp_path):
    """PEFT has no task type for it, and records the backbone's class instead."""
    backbone = masked_bert()
    backbone.save_pretrained(tmp_path / "base")
    byte_tokenizer(mask_token="<mask>").save_pretrained(tmp_path / "base")
    model = randomised(adapted(load_backbone(str(tmp_path / "base"), task_type="MASKED_LM"), task_type=None)).eval()
    model.save_pretrained(tmp_path / "adapter")
    loaded, tokenizer = load(str(tmp_path / "adapter"))
    inputs = tokenizer("ab<mask>d", return_tensors="pt")
    assert type(loaded.get_base_model()).__name__ == "BertForMaskedLM"
    assert inputs["input_ids"][0, 2] == tokenizer.mask_token_id
    with torch.no_grad():
        loud, calm = (loaded(inputs["input_ids"], styles=style).logits for style in ("loud", "calm"))
        torch.testing.assert_close(loud, model(inputs["input_ids"], styles="loud").logits)
    assert not torch.allclose(loud, calm)


def test_an_adapter_that_names_no_backbone_asks_for_one(tmp_path):
    model = adapted()
    model.peft_config["default"].base_model_name_or_path = None
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"records no backbone; name it with base=... \(--base\)"):
        load(str(tmp_path / "adapter"))
    name = save_backbone(llama(), tmp_path / "base")
    loaded, _ = load(str(tmp_path / "adapter"), base=name)
    assert list(styles_of(loaded)) == ["loud", "calm"]


def test_a_backbone_without_a_task_gets_the_head_of_its_kind(tmp_path):
    assert type(load_backbone(save_backbone(t5(), tmp_path / "t5"))).__name__ == "T5ForConditionalGeneration"
    assert type(load_backbone(save_backbone(llama(), tmp_path / "llama"))).__name__ == "LlamaForCausalLM"


def test_the_end_of_text_pads_where_there_is_no_padding_token():
    tokenizer = byte_tokenizer()
    assert pad_id(tokenizer) == PAD == 0
    tokenizer.pad_token = None
    assert pad_id(tokenizer) == tokenizer.eos_token_id == 1
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"tokenizer\.pad_token=None must be a token"):
        pad_id(tokenizer)
