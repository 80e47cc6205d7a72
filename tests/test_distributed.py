"""Several processes: two that share the weights out train to what one trains to, and what cannot run is refused."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from distributed_worker import CASES, SGD, cut_off, run_case
from peft import PeftModel
from pile_fixtures import options, save_piles
from safetensors.torch import load_file
from training_fixtures import STYLES, adapted, byte_tokenizer, llama, make_trainer, randomised, toy_batch, toy_rows

from style_adapter.game import StyleGame
from style_adapter.recipe import load_recipe
from style_adapter.trainer.files import load_sides
from style_adapter.trainer.sharding import set_up_sharding
from style_adapter.trainer.sides import DISCRIMINATOR_FILE, discriminator_state
from style_adapter.training import Texts

TESTS = Path(__file__).parent
CONFIGS = TESTS.parent / "examples" / "accelerate"
FILES = ("adapter_model.safetensors", DISCRIMINATOR_FILE)


def launch(config: str, *command: str, folder: Path, timeout: int = 500) -> None:
    """`accelerate launch` with one of the examples' configurations; 0: it finds a free port itself."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config)]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"}
    environment["HF_DATASETS_CACHE"] = str(folder / "cache")
    done = subprocess.run(
        [*launcher, "--main_process_port", "0", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def run_in_two(config: str, folder: Path, *cases: str) -> Path:
    """The cases, each in the same two processes; their folder."""
    launch(config, str(TESTS / "distributed_worker.py"), str(folder), *cases, folder=folder)
    return folder


def files_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors that a run has written, file by file."""
    return {name: load_file(folder / name) for name in FILES if (folder / name).exists()}


def assert_same_files(found: Path, expected: Path, **tolerance: float) -> None:
    """The same files with the same tensors in the same order."""
    one, other = files_of(found), files_of(expected)
    assert {name: list(tensors) for name, tensors in one.items()} == {n: list(t) for n, t in other.items()}
    for name, tensors in other.items():
        for key, tensor in tensors.items():
            torch.testing.assert_close(one[name][key], tensor, **tolerance, msg=lambda text, key=key: f"{key}: {text}")


def assert_same_log(found: list[dict], expected: list[dict]) -> None:
    """The same losses, accuracies, norms and rates at each step."""
    for two, one in zip(found, expected, strict=True):
        names = [name for name in one if name.startswith(("loss", "d_", "grad_norm", "learning_rate"))]
        assert {n: two.get(n) for n in names} == pytest.approx({n: one[n] for n in names}, rel=1e-3, abs=1e-5)


def found_in(folder: Path) -> dict:
    """What a case has noted on its way."""
    return json.loads((folder / "found.json").read_text("utf-8"))


# Two processes


def test_two_processes_of_fsdp_equal_one_with_the_double_batch(tmp_path):
    two = run_in_two("fsdp2.yaml", tmp_path / "two", "game") / "game"
    plain = run_case("game", tmp_path / "one", processes=1)
    found, expected = found_in(two), found_in(tmp_path / "one" / "game")
    assert (found["mode"], expected["mode"]) == ("FSDP", "NO")
    assert found["shares"] == pytest.approx([0.5] * 3, rel=0.01)  # each process held half of every weight
    assert any("loss_d_r1" in line for line in expected["log"])
    assert_same_log(found["log"], expected["log"])
    assert_same_files(two, tmp_path / "one" / "game", rtol=1e-4, atol=1e-6)

    loaded = PeftModel.from_pretrained(llama(), two).eval()  # what was written is whole, and loads without FSDP
    ids = byte_tokenizer()(["ab\n", "cd\n"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = [model(input_ids=ids, styles=STYLES).logits for model in (loaded, plain.style_model.eval())]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    fresh = make_trainer(tmp_path, model=randomised(adapted(noise_dim=2)))
    before = discriminator_state(fresh.model)
    load_sides(fresh.model, str(two))
    written = load_file(two / DISCRIMINATOR_FILE)
    assert all(torch.equal(tensor, written[name]) for name, tensor in discriminator_state(fresh.model).items())
    assert any(not torch.equal(tensor, written[name]) for name, tensor in before.items())


EXACT = [case for case in CASES if case not in ("game", "bf16", "cut off")]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    """Every case in two processes of FSDP2."""
    return run_in_two("fsdp2.yaml", tmp_path_factory.mktemp("sharded"), *EXACT, "bf16", "cut off", "resumed")


@pytest.fixture(scope="module")
def replicated(tmp_path_factory) -> Path:
    """Every case in two processes of DDP."""
    return run_in_two("ddp.yaml", tmp_path_factory.mktemp("replicated"), "game", *EXACT, "bf16", "resumed")


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_every_kind_of_run_is_the_same_in_two_processes_as_in_one(case, sharded, replicated, tmp_path):
    run_case(case, tmp_path, processes=1)
    for folder in (sharded, replicated):
        assert_same_log(found_in(folder / case)["log"], found_in(tmp_path / case)["log"])
        assert_same_files(folder / case, tmp_path / case, rtol=1e-4, atol=5e-6)
        assert found_in(folder / case)["warnings"] == []
    assert max(found_in(sharded / case)["shares"]) < 0.51
    assert min(found_in(replicated / case)["shares"]) == 1


@pytest.mark.slow
def test_in_bf16_shards_lower_what_replicas_lower(sharded, replicated):
    assert_same_files(sharded / "bf16", replicated / "bf16", rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sharded", "replicated"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_ends_and_the_best_step_comes_back(mode, request):
    folder = request.getfixturevalue(mode)
    for run in ("resumed", "interrupted"):
        assert_same_files(folder / run, folder / "whole", rtol=0, atol=0)
    assert_same_files(folder / "best", folder / "best" / "checkpoint-2", rtol=0, atol=0)
    last, best = (files_of(folder / "best" / step) for step in ("checkpoint-4", "checkpoint-2"))
    assert all(any(not torch.equal(last[n][key], best[n][key]) for key in best[n]) for n in FILES)
    assert not any(path.name.startswith("pytorch_model") for path in (folder / "whole" / "checkpoint-2").iterdir())


@pytest.mark.slow
def test_a_recipe_launched_with_fsdp_evaluates_and_writes_as_one_process_does(tmp_path):
    from style_adapter.cli import main

    llama().save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    toy_rows().to_json(tmp_path / "rows.jsonl")
    toy_rows(["mn op qr st", "uv wx yz ab", "b c d e"]).select(range(5)).to_json(tmp_path / "dev.jsonl")
    recipe = {"model_name_or_path": str(tmp_path / "base"), "train_file": str(tmp_path / "rows.jsonl")}
    recipe |= {"eval_file": str(tmp_path / "dev.jsonl"), "eval_strategy": "steps", "eval_steps": 2, "r": 8}
    recipe |= {"styles": STYLES, "prompt": "{source}\n", "report_to": "none", "save_strategy": "no", "logging_steps": 1}
    recipe |= SGD | {"per_device_train_batch_size": 4, "discriminator_blocks": 1, "adversary_start": 1, "max_steps": 4}
    recipe |= {"watch_steps": 1, "watch_samples": 3}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"dataloader_pin_memory": False}), "utf-8")
    command = ["train", str(tmp_path / "recipe.yaml"), "--output_dir"]
    two = [*command, str(tmp_path / "two"), "--expected_processes", "2"]
    text = (CONFIGS / "fsdp2.yaml").read_text("utf-8")
    loading = text.replace("efficient_loading: false", "efficient_loading: true")  # one process reads the backbone
    assert loading != text
    (tmp_path / "loading.yaml").write_text(loading, "utf-8")
    launch(str(tmp_path / "loading.yaml"), "-m", "style_adapter", *two, folder=tmp_path)
    assert main([*command, str(tmp_path / "one"), "--per_device_train_batch_size", "8"]) == 0
    assert_same_files(tmp_path / "two", tmp_path / "one", rtol=1e-4, atol=1e-6)
    logs = [json.loads((tmp_path / n / "trainer_state.json").read_text("utf-8"))["log_history"] for n in ("two", "one")]
    assert_same_log(*logs)
    for found, expected in zip(*logs, strict=True):
        metrics = [n for n in expected if n.startswith(("eval_loud", "eval_calm", "eval_style_score", "sample_"))]
        assert {n: found[n] for n in metrics} == pytest.approx({n: expected[n] for n in metrics}, rel=1e-4)
    assert sum("eval_style_score" in line for line in logs[0]) == 2
    assert sum("sample_copy_rate" in line for line in logs[0]) == 4


def test_a_process_without_judged_rows_keeps_step_and_changes_nothing(tmp_path):
    def played(*, lockstep: bool) -> tuple[dict, dict, StyleGame, int]:
        trainer = make_trainer(tmp_path, model=randomised(adapted()), w_r1=0.1)
        game = trainer.model.train()
        game.lockstep = lockstep
        blocks: list[int] = []
        game.model.get_base_model().model.layers[0].register_forward_hook(lambda *_: blocks.append(1))
        losses = game(**toy_batch(game.model, fraction=0.0))
        sum(rows.sum() for rows in losses.rows.values()).backward()
        gradients = {name: p.grad for name, p in game.named_parameters() if p.grad is not None}
        assert all(scores.numel() == 0 for scores in losses.scores.values())
        assert all((rows == 0).all() for name, rows in losses.rows.items() if name != "ce")
        game.prototypes.commit()
        return losses.rows, gradients, game, len(blocks)

    rows, expected, _, alone = played(lockstep=False)
    kept, found, game, together = played(lockstep=True)
    assert rows.keys() == {"ce"}
    assert {"adv", "feat", "cls", "d_adv", "d_cls", "d_r1"} < kept.keys()
    assert (alone, together) == (1, 3)  # the generator's pass; and those over real and written text
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=0, msg=name)
    assert not game.prototypes.state_dict()["seen"].any()


# What is refused


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, r"fsdp_version=1 must be 2: .* fsdp2.yaml"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "FSDP must have at least 2 processes on CPU, not 1"),
    ],
)
def test_what_accelerate_would_leave_out_without_a_word_is_refused(tmp_path, monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path)


def accelerator_with(kind: DistributedType, **plugins: object) -> Accelerator:
    """An accelerator of another kind than this machine has."""
    accelerator = object.__new__(Accelerator)
    accelerator.state = SimpleNamespace(distributed_type=kind, **plugins)
    return accelerator


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"activation_checkpointing": True}, "fsdp_activation_checkpointing must be false: .* gradient_checkpointing"),
        ({"auto_wrap_policy": "SIZE_BASED_WRAP"}, "SIZE_BASED_WRAP must be TRANSFORMER_BASED_WRAP or NO_WRAP"),
        ({"cpu_ram_efficient_loading": True}, "must be false with discriminator_spectral_norm: Accelerate spreads"),
    ],
)
def test_options_of_fsdp_that_would_train_wrongly_are_refused(tmp_path, monkeypatch, option, message):
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")  # the plugin writes it, for transformers to read
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, **option)
    trainer = make_trainer(tmp_path, discriminator_spectral_norm=True)
    with pytest.raises(ValueError, match=message):
        set_up_sharding(accelerator_with(DistributedType.FSDP, fsdp_plugin=plugin), trainer.args)


def test_sharded_weights_are_not_pushed_and_zero3_plays_no_game(tmp_path):
    alone = make_trainer(tmp_path, adversary_fraction=0.0).args
    zero3 = accelerator_with(DistributedType.DEEPSPEED, deepspeed_plugin=SimpleNamespace(zero_stage=3))
    zero2 = accelerator_with(DistributedType.DEEPSPEED, deepspeed_plugin=SimpleNamespace(zero_stage=2))
    with pytest.raises(ValueError, match="ZeRO-3 must come with adversary_fraction: 0"):
        set_up_sharding(zero3, make_trainer(tmp_path).args)
    set_up_sharding(zero2, make_trainer(tmp_path).args)
    set_up_sharding(zero3, alone)
    alone.push_to_hub = True
    set_up_sharding(zero2, alone)
    with pytest.raises(ValueError, match=r"push_to_hub must be false for sharded weights; .* style-adapter push"):
        set_up_sharding(zero3, alone)


def test_deepspeed_is_not_let_to_lower_the_discriminator(tmp_path, monkeypatch):
    zero2 = accelerator_with(DistributedType.DEEPSPEED, deepspeed_plugin=SimpleNamespace(zero_stage=2))
    playing, alone = (make_trainer(tmp_path, bf16=True, adversary_fraction=share).args for share in (1.0, 0.0))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    set_up_sharding(zero2, alone)
    with pytest.raises(ValueError, match="bf16=True and fp16=False must be false for the game under DeepSpeed"):
        set_up_sharding(zero2, playing)


# The configurations


def test_every_configuration_is_one_of_accelerate_and_stands_in_the_table():
    table = (CONFIGS / "README.md").read_text("utf-8")
    names = sorted(path.name for path in CONFIGS.glob("*.yaml"))
    assert names == ["ddp.yaml", "fsdp2.yaml", "zero2.yaml", "zero3.yaml"]
    kinds = {}
    for name in names:
        assert f"`{name}`" in table
        config = load_config_from_file(str(CONFIGS / name))
        assert config.num_processes == 2
        kinds[name] = config.distributed_type.value
    assert kinds == {
        "ddp.yaml": "MULTI_GPU",
        "fsdp2.yaml": "FSDP",
        "zero2.yaml": "DEEPSPEED",
        "zero3.yaml": "DEEPSPEED",
    }


# The check of the gradients


def warned(folder: Path, **options: object) -> list[str]:
    """What a run says of tensors without a gradient."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(folder, **options).train()
    return [str(warning.message) for warning in caught if "no gradient" in str(warning.message)]


def test_a_layer_that_is_cut_off_from_the_loss_is_named_once(tmp_path):
    (message,) = warned(tmp_path, model=cut_off(), max_steps=5)
    assert message.startswith("3 of 42 trainable tensors get no gradient and will not learn:\n")
    for table in ("A", "B", "gate"):
        assert (
            f"  1 x model.base_model.model.model.layers.*.mlp.up_proj.style_adapter_{table}.default.weight" in message
        )
    assert message.count("\n  ") == 3


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp.yaml", "fsdp2.yaml"])
def test_processes_share_out_the_texts_of_a_round_and_go_on_from_the_stage_that_has_ended(tmp_path, config):
    save_piles(tmp_path)
    given = options(tmp_path, rounds=1, round_rows=7, round_samples=2, round_epochs=1.0, max_train_rows=16)
    given |= {"eval_strategy": "no", "ddp_backend": "gloo", "expected_processes": 2}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(given), "utf-8")
    command = ["-m", "style_adapter", "train", str(recipe)]
    launch(config, *command, folder=tmp_path)
    out, left = tmp_path / "out", files_of(tmp_path / "out")
    assert set(left) == set(FILES)
    rows = [json.loads(line) for line in (out / "round-1" / "pairs.jsonl").read_text("utf-8").splitlines()]
    texts = Texts.of(load_recipe(None, given | {"expected_processes": None}))
    asked, _ = texts.halves.unheard(11, 7)  # in order, each by one process
    rewritten = [row["source"] for row in rows if row["synthetic"]]
    assert rewritten == [text for text in asked if text in rewritten]
    assert len(rows) > 7
    shutil.rmtree(out / "round-1" / "adapter")
    launch(config, *command, "--resume_from_checkpoint", "true", folder=tmp_path)
    for name, tensors in files_of(out).items():
        assert all(torch.equal(tensor, left[name][key]) for key, tensor in tensors.items())


def test_a_style_head_that_no_term_trains_is_named(tmp_path):
    (message,) = warned(tmp_path, w_d_cls=0.0, max_steps=3)
    assert message.startswith("2 of 12 trainable tensors get no gradient")
    assert "discriminator.classifier.weight" in message


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"warmup_steps": 2.0, "max_steps": 5},  # the first step's rate is 0, and B stays 0 for one more
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "adversary_start": 2, "max_steps": 4},
        {"adversary_fraction": 0.1, "per_device_train_batch_size": 2, "max_steps": 6},  # steps without a judged row
        {"w_ce": 0.0, "adversary_fraction": 0.1, "per_device_train_batch_size": 2, "max_steps": 6},
        {"game": "relativistic"},
        {"game": "hinge", "discriminator_smoothing": 0.0},
        {"rows": toy_rows().filter(lambda row: row["style"] == "loud")},  # rows of the gates without a gradient
    ],
    ids=["plain", "warm-up", "accumulation", "few judged", "game alone", "relativistic", "hinge", "one style"],
)
def test_nothing_is_said_of_a_run_that_learns(tmp_path, options):
    assert warned(tmp_path, **options) == []


@pytest.mark.slow
def test_shards_find_what_is_cut_off_too(sharded):
    (message,) = found_in(sharded / "cut off")["warnings"]
    assert message.startswith("3 of 42 trainable tensors get no gradient")
