"""What training costs: told from shapes alone, and held to real models and real steps."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from peft import get_peft_model
from torch import Tensor
from training_fixtures import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from style_adapter import StyleAdapterConfig, StyleTrainer, StyleTrainingArguments
from style_adapter.cli import main
from style_adapter.planning import WAYS, PeakBytes, Way, Work, cost, plan, step_bytes, survey

SHAPE: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 2048,
}  # fmt: skip
SMALL = Work(batch=2, prompt=8, target=8, r=4)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    """A folder with a configuration and no weights."""
    folder = tmp_path_factory.mktemp("backbone")
    LlamaConfig(**SHAPE, tie_word_embeddings=True).save_pretrained(folder)
    return folder


def adapted(folder: Path, dtype: torch.dtype, r: int, styles: int) -> Any:
    """A real model of that configuration, with an adapter."""
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).to(dtype)
    names = [f"s{number}" for number in range(styles)]
    config = StyleAdapterConfig(
        styles=names, r=r, target_modules="all-linear", task_type="CAUSAL_LM", prompt="{source}"
    )
    return get_peft_model(model, config)


# The peak


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_peak_is_what_was_alive_at_once(device):
    weight = torch.ones(100, 100, device=device, requires_grad=True)
    x = torch.ones(10, 100, device=device)
    with PeakBytes([weight, x]) as counted:
        y = (x @ weight.t()).exp()  # 1000 numbers twice, the first gone with its name
        assert (counted.now, counted.peak) == (4000, 8000)
        y.sum().backward()  # and a gradient of 10,000
    assert counted.peak == 4 * (1000 + 1000 + 10_000 + 1 + 1)  # and the sum and its own gradient
    del y
    assert counted.now == 40_000


def test_a_view_counts_nothing():
    x = torch.ones(100)
    with PeakBytes([x]) as counted:
        x.view(10, 10).t()[2:].add_(1.0)
    assert counted.peak == 0


# The survey


@pytest.mark.parametrize("styles", [2, 7])
def test_numbers_are_those_of_a_real_model(backbone, styles):
    found = survey(str(backbone), Work(2, 8, 8, r=4, styles=styles))
    model = adapted(backbone, torch.bfloat16, 4, styles)
    weights = [*model.named_parameters()]
    assert found.frozen == sum(weight.numel() for _, weight in weights if not weight.requires_grad)
    assert found.trained == sum(weight.numel() for _, weight in weights if weight.requires_grad)
    assert found.blocks == 4 * found.block == sum(w.numel() for name, w in weights if is_frozen_block(name, w))
    assert found.style == 4 * 7 * 4  # r numbers in each of 7 linear layers of 4 blocks


def is_frozen_block(name: str, weight: Tensor) -> bool:
    """Whether it is a weight of the backbone inside a block."""
    return ".layers." in name and not weight.requires_grad


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_without_numbers_holds_what_a_real_one_holds(backbone, checkpointing):
    fake = survey(str(backbone), SMALL).steps[checkpointing]
    assert fake == pytest.approx(
        step_bytes(adapted(backbone, SMALL.dtype, 4, 2), SMALL, checkpointing=checkpointing), rel=0.03
    )


class Watched(StyleTrainer):
    """Keeps the peak of its last step."""

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        weights = [*self.model.parameters()]
        with PeakBytes([*weights, *(weight.grad for weight in weights if weight.grad is not None)]) as counted:
            loss = super().training_step(*args, **kwargs)
        self.peak = counted.peak
        return loss


@pytest.mark.parametrize(
    ("dtype", "checkpointing"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)]
)
def test_a_step_costs_what_a_trainers_step_holds_within_a_tenth(backbone, tmp_path, dtype, checkpointing):
    work = Work(batch=4, prompt=64, target=64, dtype=dtype)
    rows = [{"source": "x" * length, "target": "y" * 63, "style": "s0"} for length in [64, 60] * 4]  # some padding
    arguments = StyleTrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        bf16=dtype == torch.bfloat16,
        use_cpu=True,
        adversary_fraction=0.0,
        activation_checkpointing=checkpointing,
        report_to="none",
        save_strategy="no",
    )
    trainer = Watched(
        model=adapted(backbone, dtype, 16, 2),
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=byte_tokenizer(),
    )
    trainer.train()
    found = cost(survey(str(backbone), work), work, Way(checkpointing=checkpointing))
    assert found.step == pytest.approx(trainer.peak, rel=0.1)


# Ways


def test_whole_weights_are_held_once_and_their_gradients_sent_twice(backbone):
    model = survey(str(backbone), SMALL)
    alone, eight = (cost(model, SMALL, Way(), gpus) for gpus in (1, 8))
    assert alone.weights == eight.weights == 2 * model.frozen
    assert alone.trained == eight.trained == 16 * model.trained
    assert (alone.traffic, eight.traffic) == (0, 2 * 7 / 8 * 4 * model.trained)


def test_shards_add_up_to_the_whole_beside_what_is_gathered(backbone):
    model = survey(str(backbone), SMALL)
    gathered = 2 * (model.frozen - model.blocks + 2 * model.block)
    for gpus in (2, 8, 1024):
        found = cost(model, SMALL, Way(sharded=True), gpus)
        assert found.weights == pytest.approx(2 * model.frozen / gpus + gathered * (gpus - 1) / gpus)
        assert found.trained == pytest.approx(16 * model.trained / gpus, abs=1)


def test_four_bits_are_a_quarter_of_the_linear_layers_and_one_of_them_unpacked(backbone):
    model = survey(str(backbone), SMALL)
    saved = cost(model, SMALL, Way()).weights - cost(model, SMALL, Way(four_bit=True)).weights
    assert saved == pytest.approx(2 * model.linear * (1 - 0.258) - 2 * model.largest, rel=1e-3)


def test_every_way_is_listed_once():
    assert len(WAYS) == len({str(way) for way in WAYS}) == 8


# The table


def test_the_first_way_that_fits_is_advised(backbone, capsys):
    work = ["--batch-size", "2", "--prompt", "8", "--target", "8", "--r", "4"]
    assert main(["plan", str(backbone), "--gpus", "2", *work]) == 0
    shown = capsys.readouterr().out
    in_blocks = 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 384 + 2 * 128)
    assert shown.startswith(f"{backbone}: {2048 * 128 + in_blocks + 128:,} frozen numbers, ")
    assert shown.endswith("Use: DDP.\n")
    assert shown.count("| yes") + shown.count(" yes |") >= 8
    assert "FSDP2" not in plan(str(backbone), work=SMALL)  # one GPU has nobody to share with


def test_what_fits_nowhere_is_said(backbone):  # a context alone takes more
    assert "None fits: take more GPUs" in plan(str(backbone), gpu_memory=0.5, work=SMALL)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--gpus", "0"], "gpus=0 and gpu_memory=80 must be at least 1 and above 0"),
        (["--batch-size", "0"], "batch=0 must be at least 1"),
        (["--target", "-1"], "target=-1 must be at least 1"),
    ],
)
def test_what_is_no_plan_is_refused(backbone, capsys, option, message):
    assert main(["plan", str(backbone), *option]) == 2
    assert message in capsys.readouterr().err
