"""The pipeline: one call for texts, against the functions behind it; streaming against what is written at once."""

import threading

import numpy as np
import pytest
import torch
from training_fixtures import (
    SOURCES,
    adapted,
    bert_tagger,
    byte_tokenizer,
    llama_classifier,
    randomised,
    save_backbone,
    trained_toy,
)

from style_adapter import OFF, StylePipeline, pipeline, stream, transfer, transfer_best, write
from style_adapter.inference import classify, drafts, tag

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"


@pytest.fixture
def pipe(tmp_path_factory) -> StylePipeline:
    """The toy, learnt by heart."""
    trainer = trained_toy(tmp_path_factory.mktemp("trained"))
    return pipeline(trainer.style_model, trainer.processing_class, batch_size=3)


@pytest.fixture
def drawn() -> StylePipeline:
    """A random adapter with noise, whose texts depend on everything."""
    model = randomised(adapted(noise_dim=2)).eval()
    return pipeline(model, byte_tokenizer(), task="generation", batch_size=3)


def by_length(sources: list[str], outputs: list[str], styles: list[str]) -> np.ndarray:
    """Longer is better."""
    return np.array([float(len(text)) for text in outputs])


# Rewrites


def test_texts_come_back_rewritten_in_order_with_empty_ones_and_any_script(pipe):
    texts, styles = ["ab", "", "日b", "ja je", "éa"], ["loud", "calm", "calm", "loud", "loud"]
    assert pipe(texts, styles) == ["AB!", "", "日b.", "JA JE!", "ÉA!"]
    assert pipe(tuple(texts), "calm") == ["ab.", "", "日b.", "ja je.", "éa."]


def test_one_text_gives_one_text_and_the_default_style_is_the_first(pipe):
    assert pipe("cde", "calm") == "cde."
    assert pipe("cde") == "CDE!"
    assert pipe([]) == []


def test_an_adapter_is_loaded_from_its_folder(pipe, tmp_path):
    save_backbone(tmp_path)
    pipe.model.save_pretrained(tmp_path / "adapter")
    found = pipeline(str(tmp_path / "adapter"), base=str(tmp_path / "base"))
    assert found(SOURCES, "loud") == pipe(SOURCES, "loud")
    assert found.task == "transfer"
    assert [*found.styles] == ["loud", "calm"]


def test_mixtures_and_strengths_are_those_of_the_algebra(drawn):
    pipe = pipeline(drawn.model, drawn.tokenizer)
    bank = pipe.styles
    given = (pipe.model, pipe.tokenizer, SOURCES)
    assert pipe(SOURCES, "0.7*loud - 0.4*calm") == transfer(*given, 0.7 * bank["loud"] - 0.4 * bank["calm"])
    assert pipe(SOURCES, "loud", strength=0.5) == transfer(*given, 0.5 * bank["loud"])
    assert pipe(SOURCES, "loud", strength=0) == transfer(*given, OFF)
    assert pipe(SOURCES, "loud", strength=0.5) != pipe(SOURCES, "loud")


def test_strength_by_block_is_that_of_the_model(drawn):
    strength = {"layers.0-0": 0.25, "mlp": 0.5}
    pipe, ids = pipeline(drawn.model, drawn.tokenizer), drawn.tokenizer("ab\n", return_tensors="pt")["input_ids"]
    with drawn.model.styled("calm", strength=strength):
        expected = drawn.model.generate(
            input_ids=ids, do_sample=False, max_new_tokens=9, pad_token_id=0, eos_token_id=1
        )
    text = drawn.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert pipe("ab", "calm", strength=strength, max_new_tokens=9) == text
    assert pipe("ab", "calm", max_new_tokens=9) != text


def test_strength_holds_for_every_sample_whose_prompt_is_read_once():
    model, tokenizer = randomised(adapted()).eval(), byte_tokenizer()
    half = {"strength": 0.5, "samples": 3, "max_new_tokens": 8}
    halved = 0.5 * model.styles["loud"]
    assert write(model, tokenizer, SOURCES, "loud", **half) == write(
        model, tokenizer, SOURCES, halved, samples=3, max_new_tokens=8
    )


# Candidates


def test_candidates_are_the_different_drafts_best_first(pipe):
    model, tokenizer = pipe.model, pipe.tokenizer
    found = pipe.candidates(SOURCES, "calm", n=5, diversity=3.0, score=by_length, seed=2)
    for choices, texts in zip(
        found,
        drafts(model, tokenizer, SOURCES, "calm", samples=4, temperature=3.0, noise_scale=3.0, seed=2),
        strict=True,
    ):
        assert sorted(choice.text for choice in choices) == sorted({*texts})
        assert [choice.score for choice in choices] == sorted(map(len, {*texts}), reverse=True)
    assert max(map(len, found)) > 1
    assert pipe(SOURCES, "calm", n=5, diversity=3.0, score=by_length, seed=2) == [[c.text for c in f] for f in found]


def test_the_best_of_some_is_that_of_transfer_best(pipe):
    expected = transfer_best(
        pipe.model, pipe.tokenizer, SOURCES, "loud", samples=3, temperature=2.0, noise_scale=2.0, score=by_length
    )
    assert pipe(SOURCES, "loud", drawn=4, diversity=2.0, score=by_length) == expected
    assert pipe(SOURCES, "loud", drawn=4, diversity=2.0) == transfer_best(
        pipe.model, pipe.tokenizer, SOURCES, "loud", samples=3, temperature=2.0, noise_scale=2.0
    )


def test_without_diversity_all_candidates_are_the_likeliest(pipe):
    assert pipe(SOURCES, "loud", n=4, diversity=0) == [[text] for text in pipe(SOURCES, "loud")]


def test_diversity_scales_the_noise(drawn):
    given = (drawn.model, drawn.tokenizer, ["ab", "cd"], "loud")
    options = {"temperature": 0.0, "max_new_tokens": 8, "samples": 2}
    noise = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0))
    assert write(*given, noise_scale=0.0, **options) == write(*given, noise=0 * noise, **options)
    plain, wide = write(*given, **options), write(*given, noise_scale=5.0, **options)
    assert plain != wide


# Texts from a prompt


def test_texts_are_drawn_from_prompts_as_write_draws_them(drawn):
    given = (drawn.model, drawn.tokenizer, ["ab", ""], ["loud", "calm"])
    expected = write(*given, samples=3, max_new_tokens=6, top_k=20, seed=5)
    assert drawn(["ab", ""], ["loud", "calm"], n=3, max_new_tokens=6, seed=5) == expected
    assert drawn("ab", "loud", max_new_tokens=6, seed=5) == expected[0][0]


def test_conversations_take_the_template_of_the_backbone(drawn):
    drawn.tokenizer.chat_template = CHAT
    talk = [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}, {"role": "user", "content": "c"}]
    written = "<user>a<bot>b<user>c<bot>"
    expected = write(drawn.model, drawn.tokenizer, [written], "calm", prompt="{source}", max_new_tokens=6, top_k=20)
    assert drawn(talk, "calm", max_new_tokens=6) == expected[0][0]
    assert drawn([talk, talk[:1]], "calm", max_new_tokens=6)[0] == expected[0][0]


# Classes


def test_classes_come_by_their_names():
    backbone = llama_classifier(num_labels=3, id2label={0: "bad", 1: "fair", 2: "good"})
    model, tokenizer = randomised(adapted(backbone, task_type="SEQ_CLS")).eval(), byte_tokenizer()
    pipe = pipeline(model, tokenizer)
    assert pipe.task == "classification"
    for options in ({}, {"strength": 3.0}, {"text_pairs": SOURCES[::-1]}):
        classes = classify(model, tokenizer, SOURCES, "calm", **options)
        assert pipe(SOURCES, "calm", **options) == [backbone.config.id2label[i] for i in classes]
    assert pipe("ab", "calm") == pipe(["ab"], "calm")[0]
    assert classify(model, tokenizer, SOURCES, "calm", strength=3.0) == classify(
        model, tokenizer, SOURCES, 3.0 * model.styles["calm"]
    )


def test_words_are_tagged_by_the_names_of_their_classes():
    model, tokenizer = randomised(adapted(bert_tagger(num_labels=4), task_type="TOKEN_CLS")).eval(), byte_tokenizer()
    pipe, texts = pipeline(model, tokenizer), ["ab c", "de"]
    assert pipe.task == "token_classification"
    expected = [[f"LABEL_{i}" for i in labels] for labels in tag(model, tokenizer, texts, "loud", strength=2.0)]
    assert pipe(texts, "loud", strength=2.0) == expected
    assert pipe("ab c", "loud", strength=2.0) == expected[0]


# Streaming


def test_the_pieces_of_a_stream_make_the_text(pipe, drawn):
    for text in ("ja je", "日b", "éa"):
        pieces = [*pipe.stream(text, "loud")]
        assert "".join(pieces).strip() == pipe(text, "loud")
    assert len([*pipe.stream("ja je", "loud")]) > 1
    expected = write(drawn.model, drawn.tokenizer, ["ab"], "loud", max_new_tokens=30)[0][0]
    plain = pipeline(drawn.model, drawn.tokenizer)
    assert "".join(plain.stream("ab", "calm", strength=0.5)).strip() == plain("ab", "calm", strength=0.5)
    model, tokenizer = randomised(adapted()).eval(), byte_tokenizer()
    expected = write(model, tokenizer, ["ab"], "loud", max_new_tokens=30)[0][0]
    found = "".join(pipeline(model, tokenizer, task="generation").stream("ab", "loud", max_new_tokens=30))
    assert found.strip() == expected


def test_a_stream_that_is_closed_ends_its_thread(drawn):
    before = threading.active_count()
    pieces = stream(drawn.model, drawn.tokenizer, "ab", "loud", max_new_tokens=100_000, temperature=1.0, top_k=2)
    next(pieces)
    assert threading.active_count() == before + 1
    pieces.close()
    assert threading.active_count() == before


def test_what_fails_in_the_thread_of_a_stream_is_raised_where_it_is_read(drawn, monkeypatch):
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("out of memory")

    pieces = drawn.stream("ab", "loud")
    monkeypatch.setattr(drawn.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        next(pieces)


def test_a_stream_of_an_unknown_style_is_refused_at_once(pipe):
    with pytest.raises(ValueError, match="styles='laud' must be one of"):
        pipe.stream("ab", "laud")


# Mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n=0 must be >= 1"),
        ({"n": 3, "drawn": 2}, "drawn=2 >= n"),
        ({"n": 2, "diversity": -1.0}, "diversity=-1.0 >= 0"),
        ({"style": "loud + laud"}, "styles='loud [+] laud', column 8: 'laud' must be one of"),
    ],
)
def test_options_out_of_bounds_are_refused(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(["ab"], **options)


def test_a_task_or_a_template_that_is_not_there_is_refused(pipe, drawn):
    with pytest.raises(ValueError, match="task='translate' must be one of transfer, generation, classification"):
        pipeline(pipe.model, pipe.tokenizer, task="translate")
    with pytest.raises(ValueError, match="tokenizer=None must be the backbone's tokenizer"):
        pipeline(pipe.model)
    with pytest.raises(ValueError, match="conversations need a tokenizer with a chat_template"):
        drawn([[{"role": "user", "content": "a"}]], "loud")
    classes = pipeline(randomised(adapted(llama_classifier(), task_type="SEQ_CLS")), byte_tokenizer())
    with pytest.raises(ValueError, match="task='classification' has no text to stream"):
        classes.stream("ab")
