"""The benchmarks' contest: what systems are given alike, judged by counting, by one run of each, by made-up scores."""

import re
from functools import partial

import aspects
import contest
import peers
import pytest
import runs
import torch
from cells import run_cells
from datasets import Dataset
from peft import get_peft_model
from training_fixtures import PROMPT, SOURCES, STYLES, byte_tokenizer, llama

from style_adapter import StyleAdapterConfig
from style_adapter.data import tokenize_transfer

ROWS = Dataset.from_dict({"source": SOURCES, "target": [s.upper() for s in SOURCES], "style": STYLES * 4})


@pytest.fixture
def _tiny(monkeypatch):
    """A tiny model in fp32 in place of SmolLM2-135M."""
    for module in (runs, peers):
        monkeypatch.setattr(module, "load_smollm2", lambda dtype: (llama(), byte_tokenizer()))
    monkeypatch.setattr(peers, "PROMPT", PROMPT)
    monkeypatch.setitem(runs.TRAINING, "bf16", False)
    monkeypatch.setitem(runs.TRAINING, "per_device_train_batch_size", 2)


def trained_tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


def test_loras_of_half_the_rank_have_as_many_numbers_as_the_adapter_without_its_gates():
    config = StyleAdapterConfig(styles=STYLES, r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapter = dict(get_peft_model(llama(), config).named_parameters())
    trained = sum(p.numel() for n, p in adapter.items() if p.requires_grad and "_gate" not in n)
    assert len(STYLES) * sum(t.numel() for t in trained_tensors(peers.lora(llama(), r=8))) == trained


def test_the_peer_is_taught_the_tokens_that_the_adapter_is_taught():
    tokenizer = byte_tokenizer()
    ours = tokenize_transfer(ROWS, tokenizer, prompt=PROMPT)
    theirs = peers.tokenized(ROWS, tokenizer, PROMPT)
    for our, their in zip(ours, theirs, strict=True):
        assert their["input_ids"] == our["prompt_ids"] + our["target_ids"]
        assert [label for label in their["labels"] if label != -100] == our["target_ids"]
        assert their["labels"][: len(our["prompt_ids"])] == [-100] * len(our["prompt_ids"])


@pytest.mark.usefixtures("_tiny")
def test_an_adapter_of_one_style_and_its_peer_end_at_the_same_weights():
    run, rows, kept = runs.Run(rate=1e-2, steps=6, seed=3), peers.of_style(ROWS, STYLES[0]), []

    def adapt(backbone):
        kept.append(peers.lora(backbone, r=4))
        return kept[0]

    found = peers.one_for_all(rows, run, adapt, prompt=PROMPT)
    trainer = runs.style_trainer(
        rows,
        STYLES[:1],
        config={"r": 4, "alpha": 8.0, "prompt": PROMPT},
        gate_learning_rate=0.0,
        **run.arguments(),
        **runs.NO_GAME,
    )
    before = trained_tensors(trainer.style_model)
    trainer.train()
    after = [p for n, p in trainer.style_model.named_parameters() if p.requires_grad and "_gate" not in n]
    theirs = trained_tensors(kept[0])
    assert found.steps == trainer.state.global_step == 6
    for ours, their in zip(after, theirs, strict=True):
        torch.testing.assert_close(ours.detach(), their, atol=1e-5, rtol=1e-4)
    moved = [t for t in before if not any(t.shape == a.shape and torch.equal(t, a) for a in after)]
    assert moved


@pytest.mark.usefixtures("_tiny")
def test_one_model_each_shares_the_steps_and_answers_in_the_order_of_the_rows():
    found = peers.one_each(ROWS, runs.Run(rate=1e-3, steps=4, seed=0), partial(peers.top_blocks, count=1))
    block = llama().model
    whole = sum(p.numel() for part in (block.layers[-1], block.norm) for p in part.parameters())
    assert (found.steps, found.parameters) == (4, 2 * whole)
    texts = found.rewrite(ROWS)
    for style in STYLES:
        alone = found.rewrite(peers.of_style(ROWS, style))
        assert [text for text, s in zip(texts, ROWS["style"], strict=True) if s == style] == alone


def test_a_system_is_tested_at_the_rate_that_was_best_on_development_rows(monkeypatch, tmp_path):
    asked = []

    def system(data, run):
        asked.append((run.rate, run.seed))
        return runs.Trained(lambda rows: [str(run.rate)] * len(rows), 1, run.steps, 0.0)

    def judged(data, rows, texts):
        return {
            "metrics": {"loud_bleu": -abs(float(texts[0] if texts[0][0].isdigit() else 0) - 0.02)},
            "styles": ("loud",),
        }

    monkeypatch.setattr(contest, "judged", judged)
    monkeypatch.setattr(contest.gc, "collect", int)  # seconds each, with all that the tests have loaded
    data = contest.PairedSet(("loud",), ROWS, ROWS, ROWS, None)
    setting = contest.Contest(
        {"a": lambda seed: data}, {"a": 5}, {"x": (system, (0.01, 0.021, 0.05))}, "bleu", seeds=(7, 8)
    )
    run_cells(tmp_path, contest.cells(setting, tmp_path, ["x"]))
    assert asked == [(0.01, 0), (0.021, 0), (0.05, 0), (0.021, 7), (0.021, 8)]


def test_the_judges_of_two_aspects_share_no_word():
    text = "And thou hast the bread which Moses giveth unto you, saith the greatest of them that have it."
    grammar, others = aspects.grammar_words(text).split(), aspects.other_words(text).split()
    assert sorted(grammar + others) == sorted(re.findall(r"\w+", text.lower()))
    assert not {*grammar} & {*others}
    assert {"thou", "hast", "giveth", "unto", "saith"} <= {*grammar}
