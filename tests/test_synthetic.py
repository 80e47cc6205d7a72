"""Targets that a program made: learnt as any other, never shown to the discriminator as real."""

import torch
from training_fixtures import END, byte_tokenizer, make_trainer, toy_rows

from style_adapter.functional import IGNORED
from style_adapter.game.order import Order

MADE = [row % 4 < 2 for row in range(len(toy_rows()))]  # every other source's two rows
ROWS = toy_rows().add_column("synthetic", MADE)


def batch_of(trainer, rows=range(8)):
    return trainer.data_collator([trainer.train_dataset[row] for row in rows])


def real_texts(trainer, batch) -> list[list[int]]:
    """The real texts of a batch's order, as token ids."""
    generator = trainer.model.generator
    order = Order.of(batch, generator.code(batch, "style"), decoder_only=True)
    return [labels[labels != IGNORED].tolist() for labels in order.real]


def test_a_real_text_of_the_same_style_stands_in_for_a_synthetic_target(tmp_path):
    trainer = make_trainer(tmp_path, rows=ROWS)
    batch = batch_of(trainer)
    for row, (real, text) in enumerate(zip(batch["real_ids"].tolist(), real_texts(trainer, batch), strict=True)):
        assert not MADE[real]
        assert ROWS[real]["style"] == ROWS[row]["style"]
        assert text == [*byte_tokenizer()(ROWS[real]["target"])["input_ids"], END]
        assert MADE[row] or real == row


def test_the_likelihood_and_the_fakes_stay_those_of_the_targets(tmp_path):
    plain, marked = make_trainer(tmp_path, rows=toy_rows()), make_trainer(tmp_path, rows=ROWS)
    one, other = ({k: v for k, v in batch_of(t).items() if not k.startswith("real")} for t in (plain, marked))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_stand_in_depends_on_seed_and_row_alone(tmp_path):
    trainer = make_trainer(tmp_path, rows=ROWS)
    together = batch_of(trainer, range(8))["real_ids"].tolist()
    assert batch_of(trainer, [5, 0])["real_ids"].tolist() == [together[5], together[0]]
    trainer.setting.draws.clock.epoch = 1
    assert batch_of(trainer, range(8))["real_ids"].tolist() != together


def test_a_style_without_a_text_by_people_is_compared_with_its_targets(tmp_path):
    rows = toy_rows().add_column("synthetic", [style == "loud" for style in toy_rows()["style"]])
    trainer = make_trainer(tmp_path, rows=rows)
    assert batch_of(trainer)["real_ids"].tolist() == [*range(8)]


def test_the_discriminator_learns_from_the_stand_ins(tmp_path):
    """Its features of real texts are those of the drawn texts read by themselves."""
    trainer = make_trainer(tmp_path, rows=ROWS)
    batch = batch_of(trainer)
    game = trainer.model
    order = Order.of(batch, game.generator.code(batch, "style"), decoder_only=True)
    found = game.reader.real(order)
    for row, text in enumerate(real_texts(trainer, batch)):
        alone = game.features(
            game.features.embed(torch.tensor(text), torch.ones(1, len(text)).bool()), torch.ones(1, len(text)).bool()
        )
        torch.testing.assert_close(found.features[row, : len(text)], alone[0], atol=1e-5, rtol=1e-4)
