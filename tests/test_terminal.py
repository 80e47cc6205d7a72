"""What a run says on the terminal: columns that stay, what is there and no more, one line a sample."""

from training_fixtures import make_trainer
from transformers import ProgressCallback

from style_adapter.trainer.terminal import line_of, sample_lines


def test_lines_of_one_run_stand_in_columns():
    small = {"loss": 1.0, "loss_ce": 0.5, "d_accuracy_real": 0.5, "grad_norm": 0.001, "learning_rate": 1e-3}
    large = {"loss": 12.345, "loss_ce": 1e-6, "d_accuracy_real": 1.0, "grad_norm": 3e5, "learning_rate": 5e-4}
    one, other = (line_of(logs, step=step, max_steps=1000) for logs, step in ((small, 7), (large, 1000)))
    assert len(one) == len(other)
    for label in ("loss", "ce", "D real", "|g|", "lr"):
        assert one.index(f"  {label} ") == other.index(f"  {label} ")


def test_a_line_shows_what_is_there_and_what_others_log_too():
    line = line_of({"loss_new": 0.5, "mine": 3, "note": "hello", "epoch": 1.0, "total_flos": 1e9}, step=1, max_steps=9)
    assert line == "step 1/9  new  0.500  mine  3.000  note hello"
    norms = line_of({"loss": 1.0, "grad_norm_ce": 0.5, "grad_norm_d_adv": 0.25}, step=1, max_steps=9)
    assert norms.splitlines() == ["step 1/9  loss  1.000", "  |g| of  ce  0.500  d_adv  0.250"]


def test_samples_are_one_line_each_whatever_the_model_writes():
    text = sample_lines(["a\nb\x1b[2J", "x" * 200], ["s", "t"], ["kjv", "modern"], None)
    assert text.splitlines() == ["  kjv     s -> a b\ufffd[2J", f"  modern  t -> {'x' * 117}..."]


def test_the_progress_bar_stays_and_a_users_own_printer_too(tmp_path, capsys):
    trainer = make_trainer(tmp_path, max_steps=2, disable_tqdm=False)
    trainer.train()
    captured = capsys.readouterr()
    assert captured.out.startswith("step 1/2  loss ")
    assert "2/2" in captured.err  # the bar

    class Own(ProgressCallback):
        """A user's."""

    own = Own()
    trainer = make_trainer(tmp_path, callbacks=[own])
    assert own in trainer.callback_handler.callbacks
