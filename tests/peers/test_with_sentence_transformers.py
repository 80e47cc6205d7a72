"""sentence-transformers: an encoder with a style adapter, against the plain encoder and one text at a time."""

import pytest
import torch
from conftest import randomise
from datasets import Dataset, DatasetDict
from peers_fixtures import peer, trained_rows

from style_adapter import OFF, StyleAdapterConfig, styled, styles_of

st = peer("sentence_transformers")
losses = peer("sentence_transformers.sentence_transformer.losses")
example = peer("sentence_encoder")

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")

STYLES = ["formal", "casual"]
TEXTS = ["yes", "hello thanks yes", "goodbye hi"]  # not in the order of their lengths


@pytest.fixture
def plain(tmp_path):
    torch.manual_seed(0)
    return example.tiny_encoder(str(tmp_path / "backbone"))


@pytest.fixture
def encoder(plain):
    plain.add_adapter(StyleAdapterConfig(styles=STYLES, r=4, target_modules="all-linear"))
    return randomise(plain)


def encoded(model, style, texts=TEXTS):
    with styled(model, style):
        return model.encode(texts, convert_to_tensor=True)


def test_encode_runs_in_the_style_in_force_and_off_is_the_plain_encoder(plain):
    before = plain.encode(TEXTS, convert_to_tensor=True)
    plain.add_adapter(StyleAdapterConfig(styles=STYLES, r=4, target_modules="all-linear"))
    randomise(plain)
    assert list(styles_of(plain)) == STYLES
    torch.testing.assert_close(encoded(plain, OFF), before)
    formal, casual = (encoded(plain, style) for style in STYLES)
    assert (formal - casual).abs().max() > 1e-2
    torch.testing.assert_close(plain.encode(TEXTS, convert_to_tensor=True), formal)


def test_features_take_a_style_a_row_where_encode_sorts_the_texts(encoder):
    mixed = ["casual", "formal", "formal"]
    wanted = torch.cat([encoded(encoder, style, [text]) for style, text in zip(mixed, TEXTS, strict=True)])
    with torch.no_grad():
        found = encoder({**encoder.preprocess(TEXTS), "styles": mixed})["sentence_embedding"]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert (encoded(encoder, mixed) - wanted).abs().max() > 1e-2  # the styles met the sorted rows


def test_encode_names_the_option_that_it_does_not_know(encoder):
    with pytest.raises(ValueError, match="styles"):
        encoder.encode(TEXTS, styles="casual")


def test_a_saved_encoder_comes_back_with_its_styles(encoder, tmp_path):
    encoder.save_pretrained(str(tmp_path / "saved"))
    again = st.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert list(styles_of(again)) == STYLES
    assert torch.equal(encoded(again, "casual"), encoded(encoder, "casual"))


def trainer_of(cls, model, data, folder, loss=losses.MultipleNegativesRankingLoss):
    args = st.SentenceTransformerTrainingArguments(
        str(folder),
        max_steps=2,
        learning_rate=0.1,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    return cls(model=model, args=args, train_dataset=data, loss=loss(model))


def test_a_run_inside_a_style_trains_that_style(encoder, tmp_path):
    data = Dataset.from_dict({"anchor": TEXTS, "positive": ["ok", "hi cheers ok", "bye hello"]})

    def train():
        with styled(encoder, "casual"):
            trainer_of(st.SentenceTransformerTrainer, encoder, data, tmp_path).train()

    assert trained_rows(encoder, train) == {1}


def test_a_data_set_named_by_its_style_trains_that_style(encoder, tmp_path):
    data = DatasetDict(
        {"casual": Dataset.from_dict({"anchor": TEXTS, "positive": ["ok", "hi cheers ok", "bye hello"]})}
    )
    assert trained_rows(encoder, trainer_of(example.StyledTrainer, encoder, data, tmp_path).train) == {1}


def test_a_loss_that_runs_again_in_backward_trains_the_default_style(plain, tmp_path):
    plain.add_adapter(StyleAdapterConfig(styles=STYLES, default_style="casual", r=4, target_modules="all-linear"))
    data = Dataset.from_dict({"anchor": TEXTS, "positive": ["ok", "hi cheers ok", "bye hello"]})
    cached = losses.CachedMultipleNegativesRankingLoss
    trainer = trainer_of(st.SentenceTransformerTrainer, randomise(plain), data, tmp_path, loss=cached)
    assert trained_rows(plain, trainer.train) == {1}
