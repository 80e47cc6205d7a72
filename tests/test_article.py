"""The source article's formulas, term by term: pure generation from noise, both expectations of its objective."""

import datasets
import pytest
import torch
from training_fixtures import END, adapted, byte_tokenizer, make_trainer, randomised

from style_adapter.functional import IGNORED
from style_adapter.game import Lesson
from style_adapter.game.order import Order
from style_adapter.losses import minimax_discriminator, minimax_generator

TEXTS = ["AB!", "ab.", "CDE!", "cde.", "F!", "f."]
ROWS = datasets.Dataset.from_list([{"text": text, "style": "loud" if text.endswith("!") else "calm"} for text in TEXTS])


def trainer_of(folder, **options):
    """A generator that writes from noise and a style alone."""
    defaults = {"task": "generation", "fakes": "sampled", "sampling_length": 6, "per_device_train_batch_size": 6}
    model = randomised(adapted(noise_dim=3))
    return make_trainer(folder, model=model, rows=ROWS, **defaults | options)


def phi(game, text: list[int]) -> torch.Tensor:
    """S(text): the features that the discriminator pools from the frozen blocks."""
    return game.judge([text], torch.eye(2)[[0]]).pooled[0]


def test_texts_written_from_noise_have_the_features_of_their_style_as_target(tmp_path):
    """E_z[l(S(G(z)), S*)] with l = MSE, S* the mean features of real texts."""
    trainer = trainer_of(tmp_path)
    game = trainer.model
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(6)])
    game(**batch)
    game.memory.commit()
    game.eval()
    found = game(**batch).rows["feat"]
    generator, tokenizer = game.generator, byte_tokenizer()
    order = Order.of(batch, generator.code(batch, "style"), decoder_only=True)
    assert order.code.noise.std() > 0.3
    assert {tuple(prompt) for prompt in order.prompts} == {
        tuple(tokenizer("\n")["input_ids"])
    }  # nothing but the end of it
    written = generator.writer(game.model, order.prompts, order.code, order.draws("write"))
    real = [[*tokenizer(text)["input_ids"], END] for text in TEXTS]
    with torch.no_grad():
        targets = [torch.stack([phi(game, text) for text in real[style::2]]).mean(0) for style in (0, 1)]
        expected = torch.stack([(phi(game, text) - targets[row % 2]).pow(2).mean() for row, text in enumerate(written)])
    torch.testing.assert_close(found, expected)
    other = {**batch, "noise": order.code.noise + 3}
    assert not torch.allclose(game(**other).rows["feat"], found)


def test_each_sides_loss_is_the_articles_and_they_are_opposite(tmp_path):
    """L_G = E[log D(x)] + E[log(1 - D(G(z)))] = -L_D."""
    trainer = trainer_of(tmp_path, game="minimax", discriminator_smoothing=0.0)
    game = trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(6)])
    losses = game(**batch)
    real, fake = losses.scores["real"].sigmoid(), losses.scores["fake"].sigmoid()
    expected = real.log() + (1 - fake).log()
    torch.testing.assert_close(losses.rows["adv"], expected)
    torch.testing.assert_close(losses.rows["d_adv"], -expected)
    scores = losses.scores["real"], losses.scores["fake"]
    torch.testing.assert_close(minimax_generator(*scores), -minimax_discriminator(*scores))


def test_the_likelihood_of_a_text_is_that_of_the_text_after_nothing(tmp_path):
    trainer = trainer_of(tmp_path)
    game = trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(6)])
    lesson = Lesson.of(batch, game.generator.code(batch, "style"))
    assert lesson.targets() == [[*byte_tokenizer()(text)["input_ids"], END] for text in TEXTS]
    assert (lesson.labels != IGNORED).sum() == sum(len(text) + 1 for text in TEXTS)


@pytest.mark.parametrize("noise_type", ["gaussian", "uniform"])
def test_noise_is_of_the_type_that_the_adapter_names(tmp_path, noise_type):
    model = randomised(adapted(noise_dim=200, noise_type=noise_type))
    trainer = make_trainer(tmp_path, model=model, rows=ROWS, task="generation")
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(6)])
    noise = trainer.model.generator.noise(batch)
    expected = {"gaussian": 1.0, "uniform": 1 / 3}[noise_type]  # variances
    assert abs(noise.var().item() - expected) < 0.15 * expected
    assert (noise.abs().max() <= 1) == (noise_type == "uniform")
