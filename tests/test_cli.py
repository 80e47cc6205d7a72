"""The terminal on tiny models in folders: train, transfer, evaluate, export, and what is said of mistakes."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from training_fixtures import (
    SOURCES,
    byte_tokenizer,
    closing_tokenizer,
    llama,
    llama_classifier,
    llama_tagger,
    masked_bert,
    save_backbone,
    t5,
    t5_classifier,
    toy_rows,
    trained_toy,
)
from transformers import AutoModelForCausalLM

from style_adapter import styles_of
from style_adapter.cli import main
from style_adapter.inference import classify, load, tag, transfer, transfer_best, write
from style_adapter.recipe import parse_value

pytestmark = pytest.mark.usefixtures("no_cache_at_home")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a backbone, training rows and evaluation rows."""
    save_backbone(tmp_path)
    toy_rows().to_json(tmp_path / "rows.jsonl")
    toy_rows(["mn op qr st", "uv wx yz ab", "b c d e"]).select(range(5)).to_json(tmp_path / "dev.jsonl")
    return tmp_path


@pytest.fixture
def adapter(folder) -> str:
    """The trained toy as a saved adapter."""
    trainer = trained_toy(folder / "toy")
    config = trainer.style_model.peft_config["default"]
    config.base_model_name_or_path = str(folder / "base")
    trainer.save_model(str(folder / "adapter"))
    config.base_model_name_or_path = None
    return str(folder / "adapter")


def write_recipe(folder: Path, **options) -> str:
    """A recipe of a short run on the CPU."""
    recipe = {
        "model_name_or_path": str(folder / "base"),
        "train_file": str(folder / "rows.jsonl"),
        "styles": ["loud", "calm"],
        "r": 8,
        "prompt": "{source}\n",
        "output_dir": str(folder / "out"),
        "max_steps": 2,
        "learning_rate": "1e-2",
        "per_device_train_batch_size": 8,
        "use_cpu": True,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "discriminator_blocks": 1,
        "discriminator_width": 16,
        "adversary_start": 0,
        "adversary_fraction": 0.7,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | options).replace("'1e-2'", "1e-2"), "utf-8")
    return str(path)


# Train


def test_train_leaves_adapter_discriminator_tokenizer_card_and_plots(folder, capsys):
    evaluations = {"eval_file": str(folder / "dev.jsonl"), "eval_strategy": "steps", "eval_steps": 1}
    assert main(["train", write_recipe(folder, **evaluations), "--r", "4", "--seed=3"]) == 0
    out = folder / "out"
    for name in ("adapter_config.json", "adapter_model.safetensors", "discriminator.safetensors", "tokenizer.json"):
        assert (out / name).exists(), name
    for name in ("losses.png", "styles.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    card = (out / "README.md").read_text("utf-8")
    assert "import style_adapter" in card
    assert "- `r`: 4" in card
    assert str(folder) not in card
    history = json.loads((out / "trainer_state.json").read_text("utf-8"))["log_history"]
    assert {"loss_ce", "loss_adv", "loss_d_adv"} <= history[0].keys()
    assert any("eval_style_score" in line for line in history)
    model, _ = load(str(out))
    assert model.peft_config["default"].r == 4
    assert list(styles_of(model)) == ["loud", "calm"]
    assert "style-adapter transfer --adapter" in capsys.readouterr().out


def test_a_run_resumes_from_its_newest_checkpoint(folder):
    recipe = write_recipe(folder, save_strategy="steps", save_steps=1, lr_scheduler_type="constant")
    assert main(["train", recipe]) == 0
    assert main(["train", recipe, "--max_steps", "3", "--resume_from_checkpoint", "true"]) == 0
    resumed = load_file(folder / "out" / "adapter_model.safetensors")
    whole = ["--max_steps", "3", "--output_dir", str(folder / "whole"), "--save_strategy", "no"]
    assert main(["train", recipe, *whole]) == 0
    expected = load_file(folder / "whole" / "adapter_model.safetensors")
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name


@pytest.mark.filterwarnings("ignore:Could not find a config file in org/tiny:UserWarning")  # PEFT, offline
def test_a_hub_id_is_recorded_in_place_of_the_folder(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["train", write_recipe(folder, base_model_id="org/tiny", adversary_fraction=0)]) == 0
    config = json.loads((folder / "out" / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "org/tiny"
    assert "base_model: org/tiny" in (folder / "out" / "README.md").read_text("utf-8")
    assert not (folder / "out" / "discriminator.safetensors").exists()


def test_a_classifier_is_trained_and_loaded_with_its_classes(folder):
    llama_classifier(num_labels=2, pad_token_id=None).save_pretrained(folder / "base")
    rows = [{"text": text, "label": 2 * text.startswith("a"), "style": "loud"} for text in ("ab", "ba", "ac", "bc")]
    datasets.Dataset.from_list(rows).to_csv(folder / "rows.csv", index=False)
    recipe = write_recipe(folder, task="classification", train_file=str(folder / "rows.csv"), max_steps=40)
    assert main(["train", recipe]) == 0
    model, tokenizer = load(str(folder / "out"))
    assert model.config.num_labels == 3
    assert classify(model, tokenizer, ["ab", "ba", "ac", "bc"]) == [2, 0, 2, 0]


def test_an_encoder_decoders_classifier_is_loaded_with_the_head_it_was_trained_with(folder):
    backbone = t5_classifier(num_labels=2)
    backbone.save_pretrained(folder / "base")
    closing_tokenizer().save_pretrained(folder / "base")
    rows = [{"text": text, "label": int(text.startswith("a")), "style": "loud"} for text in ("ab", "ba", "ac", "bc")]
    datasets.Dataset.from_list(rows).to_json(folder / "rows.jsonl")
    assert main(["train", write_recipe(folder, task="classification", max_steps=40)]) == 0
    backbone.transformer.save_pretrained(folder / "base")  # as on the hub: each loading draws another head
    for _ in range(2):
        model, tokenizer = load(str(folder / "out"))
        assert classify(model, tokenizer, ["ab", "ba", "ac", "bc"]) == [1, 0, 1, 0]


def test_a_tagger_is_trained_and_loaded_with_its_classes(folder, capsys):
    llama_tagger().save_pretrained(folder / "base")
    rows = [{"text": words, "label": [int("a" in word) for word in words.split()]} for words in ("a b", "b ab", "c a")]
    datasets.Dataset.from_list(rows).to_json(folder / "rows.jsonl")
    assert main(["train", write_recipe(folder, task="token_classification", max_steps=60)]) == 0
    assert "Try: style_adapter.tag(*style_adapter.load('" in capsys.readouterr().out
    model, tokenizer = load(str(folder / "out"))
    assert model.config.num_labels == 2
    assert tag(model, tokenizer, ["a b", "b ab", "c a"]) == [[1, 0], [0, 1], [0, 1]]
    assert "print(tag(model, tokenizer" in (folder / "out" / "README.md").read_text("utf-8")


def test_a_masked_language_model_is_trained_and_loaded_with_its_head(folder, capsys):
    masked_bert().save_pretrained(folder / "base")
    byte_tokenizer(mask_token="<mask>").save_pretrained(folder / "base")
    datasets.Dataset.from_dict({"text": ["abc", "abd"], "style": ["loud", "calm"]}).to_json(folder / "rows.jsonl")
    evaluations = {"eval_file": str(folder / "rows.jsonl"), "eval_strategy": "steps", "eval_steps": 1}
    assert main(["train", write_recipe(folder, task="masked_lm", **evaluations)]) == 0
    assert "Try: model, tokenizer = style_adapter.load('" in capsys.readouterr().out
    model, tokenizer = load(str(folder / "out"))
    assert model(**tokenizer("ab<mask>", return_tensors="pt"), styles="calm").logits.shape == (1, 3, 259)
    assert "tokenizer.mask_token" in (folder / "out" / "README.md").read_text("utf-8")


def test_a_writer_is_trained_and_writes(folder, capsys):
    rows = [{"text": "OH MY", "style": "loud"}, {"text": "oh my", "style": "calm"}]
    datasets.Dataset.from_list(rows).to_json(folder / "rows.jsonl")
    llama(initializer_range=0.5).save_pretrained(folder / "base")
    options = {"max_steps": 60, "adversary_fraction": 0, "eval_file": str(folder / "rows.jsonl")}
    options |= {"eval_strategy": "steps", "eval_steps": 60, "eval_max_new_tokens": 8}
    assert main(["train", write_recipe(folder, task="generation", **options)]) == 0
    said = capsys.readouterr().out
    assert f"Try: style-adapter write --adapter {folder / 'out'} --style calm --samples 3" in said
    assert re.search(r"^eval 60/60 .*  distinct \d", said, re.MULTILINE)
    adapter = str(folder / "out")
    assert main(["write", "--adapter", adapter, "--style", "calm", "--samples", "2", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == "oh my\noh my\n"
    (folder / "prompts.txt").write_text("\n\n", "utf-8")
    given = ["--input", str(folder / "prompts.txt"), "--output", str(folder / "texts.txt"), "--temperature", "0"]
    assert main(["write", "--adapter", adapter, *given, "--max-new-tokens", "8"]) == 0
    assert (folder / "texts.txt").read_text("utf-8") == "OH MY\nOH MY\n"
    assert "print(write(model, tokenizer" in (folder / "out" / "README.md").read_text("utf-8")


def test_an_encoder_decoder_is_trained_by_the_same_recipe(folder):
    t5().save_pretrained(folder / "base")
    assert main(["train", write_recipe(folder)]) == 0
    model, tokenizer = load(str(folder / "out"))
    assert model.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    assert len(transfer(model, tokenizer, ["ab"], "calm", max_new_tokens=3)) == 1


def test_two_processes_equal_one_with_the_double_batch(folder):
    """The launcher itself: SGD, so that a difference of 1e-7 in a gradient stays one in the weights."""
    options = {"optim": "sgd", "learning_rate": 0.1, "discriminator_learning_rate": 0.1, "max_steps": 3}
    options |= {"per_device_train_batch_size": 4, "adversary_start": 1, "noise_dim": 2, "novel_token_weight": 3.0}
    options |= {"eval_file": str(folder / "dev.jsonl"), "eval_strategy": "steps", "eval_steps": 3, "w_r1": 0.1}
    options |= {"adversary_fraction": 0.3}  # in some step one process has judged rows and the other has none
    options |= {"watch_steps": 1, "watch_samples": 3, "term_gradient_steps": 1}
    recipe = write_recipe(folder, ddp_backend="gloo", **options)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    # 0: the launcher finds a free port itself, right before it binds it
    launch += ["--main_process_port", "0", "-m", "style_adapter", "train", recipe]
    launch += ["--output_dir", str(folder / "two"), "--expected_processes", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(launch, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one = ["--output_dir", str(folder / "one"), "--expected_processes", "1", "--per_device_train_batch_size", "8"]
    assert main(["train", recipe, *one]) == 0
    for name in ("adapter_model.safetensors", "discriminator.safetensors"):
        found, expected = (load_file(folder / run / name) for run in ("two", "one"))
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-6, msg=key)
    states = {run: json.loads((folder / run / "trainer_state.json").read_text("utf-8")) for run in ("two", "one")}
    for two, single in zip(states["two"]["log_history"], states["one"]["log_history"], strict=True):
        compared = ("loss", "d_", "eval_loud", "eval_calm", "eval_style_score", "sample_", "grad_norm_")
        names = [n for n in single if n.startswith(compared)]
        assert {n: two.get(n) for n in names} == pytest.approx({n: single[n] for n in names}, rel=1e-3, abs=1e-6)
    assert {"loss_d_r1", "sample_style_accuracy", "grad_norm_d_r1"} <= set().union(*states["one"]["log_history"])
    assert done.stdout.count("step 2/3  loss ") == 1  # one process speaks


# Transfer


def test_transfer_rewrites_arguments_files_and_standard_input(adapter, tmp_path, capsys, monkeypatch):
    assert main(["transfer", "--adapter", adapter, "--style", "calm", "ab", "éa"]) == 0
    assert capsys.readouterr().out == "ab.\néa.\n"
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("日b\n\ncde\n\n", "utf-8")
    options = ["--style", "loud", "--input", str(source), "--output", str(target), "--batch-size", "1"]
    assert main(["transfer", "--adapter", adapter, *options]) == 0
    assert target.read_text("utf-8") == "日B!\n\nCDE!\n\n"
    for chosen in (["--input", "-"], []):
        monkeypatch.setattr(sys, "stdin", io.StringIO("ab\nhi"))
        assert main(["transfer", "--adapter", adapter, "--num-beams", "2", *chosen]) == 0
        assert capsys.readouterr().out == "AB!\nHI!\n"


def test_one_line_in_is_one_line_out(adapter, tmp_path, monkeypatch):
    seen = []

    def rewrite(model, tokenizer, texts, *args, **kwargs):
        seen.extend(texts)
        return [f"{text}\nmore" for text in texts]

    monkeypatch.setattr("style_adapter.inference.transfer", rewrite)
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("a\u2028b\nc\x0bd\n", "utf-8")
    assert main(["transfer", "--adapter", adapter, "--input", str(source), "--output", str(target)]) == 0
    assert seen == ["a\u2028b", "c\x0bd"]
    assert target.read_text("utf-8") == "a\u2028b more\nc\x0bd more\n"


@pytest.mark.parametrize("style", ["{calm: 1e0, loud: 0}", "0.5*calm + 0.5*calm", "blend(3*calm)", "[calm]"])
def test_a_mixture_is_written_in_words_or_as_yaml(adapter, capsys, style):
    assert main(["transfer", "--adapter", adapter, "--style", style, "ab"]) == 0
    assert capsys.readouterr().out == "ab.\n"


@pytest.mark.parametrize("strength", ["-1", "{layers.0-0: -1, mlp: 0.1}"])
def test_strength_is_one_factor_or_one_by_block(adapter, capsys, strength):
    given = ["--adapter", adapter, "--style", "calm", f"--strength={strength}"]
    model, tokenizer = load(adapter)
    expected = transfer(model, tokenizer, ["ab"], "calm", strength=parse_value(strength))
    assert expected != transfer(model, tokenizer, ["ab"], "calm")
    assert main(["transfer", *given, "ab"]) == 0
    assert capsys.readouterr().out == f"{expected[0]}\n"
    drawn = write(model, tokenizer, ["ab"], "calm", strength=parse_value(strength), max_new_tokens=9)
    assert main(["write", *given, "--max-new-tokens", "9", "ab"]) == 0
    assert capsys.readouterr().out == f"{' '.join(drawn[0][0].splitlines())}\n"


def test_a_strength_that_is_no_number_is_refused(adapter, capsys):
    with pytest.raises(SystemExit):
        main(["transfer", "--adapter", adapter, "--strength", "much", "ab"])
    assert "'much' must be a number, or numbers by block: '{layers.0-11: 0.5}'" in capsys.readouterr().err


def test_a_mistake_in_a_mixture_is_told_with_its_column(adapter, capsys):
    assert main(["transfer", "--adapter", adapter, "--style", "calm + laud", "ab"]) == 2
    assert "styles='calm + laud', column 8: 'laud' must be one of the adapter's styles" in capsys.readouterr().err


def test_of_several_candidates_the_best_by_the_adapters_own_score_is_written(adapter, capsys):
    assert main(["transfer", "--adapter", adapter, "--style", "calm", "--candidates", "3", "ab", "éa"]) == 0
    model, tokenizer = load(adapter)
    best = transfer_best(model, tokenizer, ["ab", "éa"], "calm", samples=3)
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in best)


# Evaluate, export


def test_evaluate_prints_and_keeps_the_table(adapter, folder, capsys):
    data = ["--data", str(folder / "dev.jsonl"), "--judge-data", str(folder / "rows.jsonl")]
    llama_classifier(num_labels=2, id2label={0: "loud", 1: "calm"}).save_pretrained(folder / "judge")
    byte_tokenizer().save_pretrained(folder / "judge")
    models = ["--judge", str(folder / "judge"), "--language-model", str(folder / "base")]
    assert main(["evaluate", "--adapter", adapter, *data, *models, "--output", str(folder / "found")]) == 0
    printed = capsys.readouterr().out
    scores = json.loads((folder / "found" / "metrics.json").read_text("utf-8"))["runs"]
    assert list(scores) == ["copy", "before", "after"]
    assert scores["copy"]["loud"]["self_bleu"]["value"] == pytest.approx(100)
    assert f"style_accuracy_{folder / 'judge'}" in scores["after"]["overall"]
    assert "| to " in printed
    assert sum(line.startswith("| loud    | after ") for line in printed.splitlines()) == 1
    assert printed == (folder / "found" / "metrics.md").read_text("utf-8")
    assert (folder / "found" / "joint.png").exists()


def test_a_table_is_drawn_where_somebody_looks_at_a_terminal(monkeypatch, capsys):
    from style_adapter.cli.commands import _show

    pytest.importorskip("rich")
    table = "| to  | BLEU |\n| --- | ---: |\n| kjv | 47.5 |"
    _show(table)
    assert capsys.readouterr().out == table + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    _show(table)
    drawn = capsys.readouterr().out
    assert "47.5" in drawn
    assert "| ---" not in drawn


def test_evaluate_refuses_judge_data_that_overlaps(adapter, folder, capsys):
    rows = toy_rows(["zz", *SOURCES[:1]])
    rows.to_json(folder / "overlap.jsonl")
    data = ["--data", str(folder / "overlap.jsonl"), "--judge-data", str(folder / "rows.jsonl")]
    assert main(["evaluate", "--adapter", adapter, *data]) == 2
    assert "--judge-data holds 2 of the lines of --data and must hold none" in capsys.readouterr().err


def test_export_writes_a_lora_of_one_style(adapter, folder, capsys):
    assert main(["export", "--adapter", adapter, "--style", "calm", str(folder / "lora")]) == 0
    said = capsys.readouterr().out
    assert "PeftModel.from_pretrained(backbone" in said
    assert f"vllm serve {folder / 'base'} --enable-lora --lora-modules lora={folder / 'lora'}\n" in said
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), folder / "lora")
    ids = byte_tokenizer()("ab\n", return_tensors="pt")["input_ids"]
    new = plain.eval().generate(input_ids=ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert byte_tokenizer().decode(new, skip_special_tokens=True) == "ab."


# Help and mistakes


def test_help_of_train_shows_options_of_every_section(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for option in ("--model_name_or_path", "--train_file", "--noise_dim", "--w_adv", "--learning_rate", "--rounds"):
        assert f"{option} " in shown
    assert shown.startswith("usage: style-adapter train [-h] [recipe] [--OPTION VALUE ...]\n")


def test_help_loads_nothing_that_reads_data_or_trains():
    shown = """
import sys
from style_adapter.cli import main
try:
    main(["--help"])
finally:
    heavy = ("datasets", "pandas", "sklearn", "matplotlib", "style_adapter.data", "style_adapter.trainer")
    print("heavy:", *(name for name in heavy if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, timeout=300, check=True)
    assert "transfer" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["heavy:"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["train", "RECIPE", "--larning_rate", "1"], "'--larning_rate' is no option; did you mean '--learning_rate'?"),
        (["train", "RECIPE", "--learning_rat", "1"], "'--learning_rat' is no option; did you mean '--learning_rate'?"),
        (["train", "RECIPE", "--styles", "[a"], "argument --styles: invalid parse_value value: '[a'"),
        (["train", "RECIPE", "--r", "0"], "r=0 must be >= 1; set r in StyleAdapterConfig"),
        (["train", "RECIPE", "--r", "two"], "r='two' must be int; correct it in the recipe"),
        (["train", "RECIPE", "--styles", "[loud]"], "styles='calm' must be one of the adapter's styles: loud"),
        (["train", "RECIPE", "--train_file", "gone.jsonl"], "gone.jsonl does not exist; give the path of a .jsonl"),
        (["train", "RECIPE", "--train_file", __file__], "must end in one of .jsonl, .json, .csv, .parquet; rename or"),
        (["train", "gone.yaml"], "No such file or directory: 'gone.yaml'"),
        (["train"], "'model_name_or_path' is missing and must be set; add it to the recipe or as --model_name_or_path"),
        (["transfer", "--adapter", "ADAPTER", "--style", "laud", "x"], "styles='laud' must be one of the adapter's"),
        (["transfer", "--adapter", "/nowhere", "x"], "/nowhere"),
        (["transfer", "--adapter", "ADAPTER", "--input", "gone.txt"], "No such file or directory: 'gone.txt'"),
        (
            ["transfer", "--adapter", "ADAPTER", "--candidates", "2", "--num-beams", "4", "x"],
            "--num-beams=4 must be 1 with --candidates, which are drawn; leave one out",
        ),
        (["transfer", "x"], "the following arguments are required: --adapter"),
        (["write", "--adapter", "ADAPTER", "--samples", "0"], "samples=0 and max_new_tokens=128 must be >= 1"),
        (["write", "--adapter", "ADAPTER", "--temperature", "-1"], "temperature=-1.0 must be >= 0"),
        (["export", "--adapter", "ADAPTER", "--style", "[loud, calm]", "OUT"], "2 styles must be 1 to merge or export"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(adapter, folder, capsys, given, message):
    replaced = {"RECIPE": write_recipe(folder), "ADAPTER": adapter, "OUT": str(folder / "lora")}
    capsys.readouterr()
    try:
        status = main([replaced.get(word, word) for word in given])
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr().err
    line = said.rstrip("\n").split("\n")[-1]
    assert status == 2
    assert line.startswith("style-adapter")
    assert message in line
    assert [other for other in said.split("\n") if other.startswith(("usage", "Traceback", "  "))] == []
