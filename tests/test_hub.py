"""To the hub and back: the real huggingface_hub client against a small hub on loopback (tests/hub_server.py)."""

import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers.utils.hub
from hub_server import Hub, Repo
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load
from torch import Tensor
from training_fixtures import adapted, byte_tokenizer, llama, llama_classifier, make_trainer, randomised
from transformers import TrainingArguments

from style_adapter import push_to_hub, write_card
from style_adapter.cli import main
from style_adapter.hub import lora_folders
from style_adapter.inference import transfer

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's LFS upload
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
BASE = "me/tiny"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """An empty hub, an empty cache, and a client whose stored token is the right one."""
    hub = Hub()
    server = hub.serve()
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    yield hub
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()


def house(base: str | None = BASE, seed: int = 0, **options) -> PeftModel:
    """A random adapter of the styles loud and calm, said to stand on `base`."""
    model = randomised(adapted(seed=seed, **options)).eval()
    model.peft_config["default"].base_model_name_or_path = base
    return model


def with_base(hub: Hub, tmp_path: Path) -> None:
    """Puts the backbone on the hub, with its tokenizer."""
    llama().save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    files = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    hub.repos[BASE] = Repo(private=False)
    hub.repos[BASE].commit("main", files)


def logits(model, **styles) -> Tensor:
    """What a model says of the same tokens."""
    with torch.no_grad():
        return model(input_ids=IDS, **styles).logits


def holds(files: dict[str, bytes], secret: str) -> list[str]:
    """The files in which `secret` occurs."""
    return [name for name, content in files.items() if secret.encode() in content]


# There and back


def test_a_pushed_adapter_comes_back_from_an_empty_cache_bit_by_bit(hub):
    model = house()
    commit = push_to_hub(model, "me/house", commit_message="First")
    files = hub.repos["me/house"].files()
    exports = {f"lora/{style}/{name}" for style in ("loud", "calm") for name in ("adapter_config.json", WEIGHTS)}
    assert set(files) == {"README.md", "adapter_config.json", WEIGHTS, "SHA256SUMS"} | exports
    assert commit.oid == hub.repos["me/house"].branches["main"]
    assert not hub.repos["me/house"].private
    loaded = PeftModel.from_pretrained(llama(), "me/house").eval()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    for style in ("loud", "calm"):
        assert torch.equal(logits(loaded, styles=style), logits(model, styles=style))


WEIGHTS = "adapter_model.safetensors"


def test_the_models_own_push_does_the_same(hub):
    model = house()
    push_to_hub(model, "me/function")
    model.push_to_hub("me/method", private=True, token=hub.token)
    function, method = (hub.repos[name].files() for name in ("me/function", "me/method"))
    assert hub.repos["me/method"].private
    assert {name: content.replace(b"me/method", b"me/function") for name, content in method.items()} == function


def test_other_methods_are_pushed_as_before(hub):
    model = get_peft_model(llama(), LoraConfig(target_modules=["q_proj"]))
    model.push_to_hub("me/lora")
    files = hub.repos["me/lora"].files()
    assert set(files) == {"README.md", "adapter_config.json", WEIGHTS}
    assert b"style_adapter" not in files["README.md"]


def test_both_ways_of_the_card_run_on_an_empty_cache(hub, tmp_path):
    with_base(hub, tmp_path)
    model = house()
    push_to_hub(model, "me/house")
    card = hub.repos["me/house"].files()["README.md"].decode()
    ours, stock = (part.split("```")[0] for part in card.split("```python\n")[1:])
    with redirect_stdout(io.StringIO()) as printed:
        exec(ours, {})
    mixture = 0.7 * model.styles["loud"] + 0.3 * model.styles["calm"]
    expected = [transfer(model, byte_tokenizer(), ["your text"], style) for style in ("loud", mixture)]
    assert printed.getvalue() == "".join(f"{texts}\n" for texts in expected)
    assert expected[0] != expected[1]
    there: dict[str, PeftModel] = {}
    exec(stock, there)
    assert there["model"].peft_config["default"].peft_type == "LORA"
    torch.testing.assert_close(logits(there["model"]), logits(model, styles="loud"), atol=1e-5, rtol=1e-5)


_STOCK = """
import sys
sys.modules["style_adapter"] = None  # not importable here, by name or from the folder of the sources
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

backbone = AutoModelForCausalLM.from_pretrained("me/tiny").eval()
try:
    PeftModel.from_pretrained(backbone, "me/house")
except KeyError as error:
    print(repr(error))
model = PeftModel.from_pretrained(backbone, "me/house", subfolder="lora/calm")
with torch.no_grad():
    save_file({{"logits": model(input_ids=torch.tensor({ids})).logits}}, "logits.safetensors")
"""


def test_without_the_package_peft_answers_what_the_card_says_and_loads_the_lora(hub, tmp_path):
    with_base(hub, tmp_path)
    model = house()
    push_to_hub(model, "me/house")
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", _STOCK.format(ids=IDS.tolist())]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "KeyError('STYLE_ADAPTER')"
    assert done.stdout.strip()[9:-1] in hub.repos["me/house"].files()["README.md"].decode()
    found = load((tmp_path / "logits.safetensors").read_bytes())["logits"]
    torch.testing.assert_close(found, logits(model, styles="calm"), atol=1e-5, rtol=1e-5)


def test_the_clients_pipeline_pushes_the_same(hub, monkeypatch):
    """With hf_xet installed the client uploads folders in another way; here the hub takes weights in the commit."""
    push_to_hub(house(styles=["old"]), "me/lfs")
    push_to_hub(house(), "me/lfs")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hub.lfs = False
    push_to_hub(house(styles=["old"]), "me/lfs2", private=True)
    commit = push_to_hub(house(), "me/lfs2", commit_message="Again")
    repo = hub.repos["me/lfs2"]
    assert repo.branches["main"] == commit.oid
    files = {name: content.replace(b"me/lfs2", b"me/lfs") for name, content in repo.files().items()}
    assert files == hub.repos["me/lfs"].files()


# Revision, subfolder, token, broken connections


def test_a_revision_is_a_branch_or_a_commit(hub):
    old, new = house(), house(alpha=40.0)
    first = push_to_hub(old, "me/house", revision="v1").oid
    push_to_hub(new, "me/house")
    for revision, expected in (("v1", old), (first, old), ("main", new), (None, new)):
        loaded = PeftModel.from_pretrained(llama(), "me/house", revision=revision).eval()
        assert torch.equal(logits(loaded), logits(expected)), revision
    push_to_hub(new, "me/house", revision="v1")
    assert torch.equal(logits(PeftModel.from_pretrained(llama(), "me/house", revision="v1").eval()), logits(new))
    assert not torch.equal(logits(old), logits(new))


def test_an_adapter_is_loaded_from_a_subfolder(hub, tmp_path):
    model = house()
    model.save_pretrained(tmp_path / "out")
    HfApi().create_repo("me/many")
    HfApi().upload_folder(repo_id="me/many", folder_path=tmp_path / "out", path_in_repo="styles/house")
    loaded = PeftModel.from_pretrained(llama(), "me/many", subfolder="styles/house").eval()
    assert torch.equal(logits(loaded, styles="calm"), logits(model, styles="calm"))
    with pytest.raises(ValueError, match=r"Can't find 'adapter_config.json' at 'me/many'"):
        PeftModel.from_pretrained(llama(), "me/many")


def test_a_private_repo_opens_to_the_right_token_alone(hub, monkeypatch):
    model = house()
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="401"):
        push_to_hub(model, "me/house", token="hf_wrong")
    assert not hub.repos
    push_to_hub(model, "me/house", private=True, token=hub.token)
    monkeypatch.delenv("HF_TOKEN")
    for token in (False, "hf_wrong"):
        with pytest.raises(ValueError, match=r"Can't find 'adapter_config.json' at 'me/house'"):
            PeftModel.from_pretrained(llama(), "me/house", token=token)
        assert hub.asked("HEAD", "me/house/resolve")[-1][0] == 401
    loaded = PeftModel.from_pretrained(llama(), "me/house", token=hub.token).eval()
    assert torch.equal(logits(loaded), logits(model))
    loaded = PeftModel.from_pretrained(llama(), "me/house", subfolder="lora/loud", token=hub.token).eval()
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1000, 10 * 2**20])
def test_a_broken_download_ends_with_the_right_bytes(hub, monkeypatch, chunk):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", chunk)
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    model = house()
    push_to_hub(model, "me/house")
    path = f"/me/house/resolve/main/{WEIGHTS}"
    hub.breaks[path] = 5500
    loaded = PeftModel.from_pretrained(llama(), "me/house").eval()
    assert torch.equal(logits(loaded, styles="calm"), logits(model, styles="calm"))
    assert Path(hf_hub_download("me/house", WEIGHTS)).read_bytes() == hub.repos["me/house"].files()[WEIGHTS]
    ranges = [(status, headers.get("Range")) for status, headers in hub.asked("GET", path)]
    # The client goes on after its last whole chunk (10 MiB by default): a smaller file starts anew.
    assert ranges == [(200, None), (206, "bytes=5000-") if chunk == 1000 else (200, None)]


# What the repo says and holds


@pytest.mark.filterwarnings("ignore:Could not find a config file in:UserWarning")
def test_a_local_backbone_is_not_recorded_unless_its_id_is_given(hub, tmp_path):
    llama().save_pretrained(tmp_path / "base")
    model = house(str(tmp_path / "base"))
    with pytest.warns(UserWarning, match=r"me/house names none; push again with base_model_id='owner/name'"):
        push_to_hub(model, "me/house")
    assert not holds(hub.repos["me/house"].files(), str(tmp_path))
    assert bases(hub) == [None, None, None]
    push_to_hub(model, "me/house", base_model_id=BASE)
    assert not holds(hub.repos["me/house"].files(), str(tmp_path))
    assert bases(hub) == [BASE, BASE, BASE]
    assert huggingface_hub.ModelCard.load("me/house").data.base_model == BASE
    with pytest.raises(ValueError, match="Repo id"):
        push_to_hub(model, "me/house", base_model_id=str(tmp_path))
    assert model.peft_config["default"].base_model_name_or_path == str(tmp_path / "base")  # needed here
    # PEFT's own card names the path, and the hub refuses it.
    PeftModel.create_or_update_model_card.__wrapped__(model, str(tmp_path / "base"))
    with pytest.raises(ValueError, match=r"Invalid metadata in README.md(.|\n)*base_model"):
        HfApi().upload_folder(repo_id="me/house", folder_path=tmp_path / "base")


def bases(hub: Hub) -> list[str | None]:
    """The backbone that each config in the repo records."""
    files = hub.repos["me/house"].files().items()
    return [json.loads(content)["base_model_name_or_path"] for name, content in files if name.endswith("config.json")]


@pytest.mark.parametrize("options", [{"modules_to_save": ["norm"]}, {"bias": "all"}, {"trainable": "all"}])
def test_what_no_lora_can_hold_is_pushed_without_and_the_card_says_so(hub, options):
    model = house(**options)
    push_to_hub(model, "me/house")
    files = hub.repos["me/house"].files()
    assert not [name for name in files if name.startswith("lora/")]
    lost = {"modules_to_save": "`norm`", "bias": "biases", "trainable": "the backbone"}[next(iter(options))]
    assert f"the adapter has trained {lost} too" in files["README.md"].decode()
    loaded = PeftModel.from_pretrained(llama(), "me/house").eval()
    assert torch.equal(logits(loaded, styles="calm"), logits(model, styles="calm"))


def test_a_classifier_keeps_its_head_and_says_that_it_has_no_lora(hub):
    model = randomised(adapted(llama_classifier(num_labels=3), task_type="SEQ_CLS")).eval()
    model.peft_config["default"].base_model_name_or_path = BASE
    push_to_hub(model, "me/house")
    files = hub.repos["me/house"].files()
    assert set(files) == {"README.md", "adapter_config.json", WEIGHTS, "SHA256SUMS"}
    assert "the adapter has trained `classifier` and `score` too" in files["README.md"].decode()
    loaded = PeftModel.from_pretrained(llama_classifier(num_labels=3), "me/house").eval()
    assert torch.equal(logits(loaded), logits(model))


def test_lora_holds_the_styles_of_the_last_push_under_names_that_travel(hub):
    names = ["it's 50%", "who?", "Who?", ".git", "é 日"]
    push_to_hub(house(), "me/house")
    model = house(styles=names)
    push_to_hub(model, "me/house")
    folders = {name.rpartition("/")[0] for name in hub.repos["me/house"].files() if name.startswith("lora/")}
    assert folders == set(lora_folders(names).values())
    for style, folder in lora_folders(names).items():
        loaded = PeftModel.from_pretrained(llama(), "me/house", subfolder=folder).eval()
        torch.testing.assert_close(logits(loaded), logits(model, styles=style), atol=1e-5, rtol=1e-5)
    push_to_hub(model, "me/house", styles=["é 日"])
    files = hub.repos["me/house"].files()
    assert {name.rpartition("/")[0] for name in files if name.startswith("lora/")} == {"lora/é 日"}
    assert "some styles (`lora/é 日`)" in files["README.md"].decode()
    with pytest.raises(ValueError, match=r"styles=\['kjv'\] must be some of the adapter's styles: it's 50%, who"):
        push_to_hub(model, "me/house", styles=["kjv"])
    assert hub.repos["me/house"].files() == files


def test_an_adapter_of_any_name_stands_at_the_top(hub):
    model = house()
    model.add_adapter("lora", model.peft_config["default"])
    model.set_adapter("lora")
    randomised(model)
    push_to_hub(model, "me/house", styles=[])
    assert set(hub.repos["me/house"].files()) == {"README.md", "adapter_config.json", WEIGHTS, "SHA256SUMS"}
    loaded = PeftModel.from_pretrained(llama(), "me/house").eval()
    assert torch.equal(logits(loaded, styles="calm"), logits(model, styles="calm"))


# Releases


def test_the_checksums_of_all_weights_go_along_and_hold(hub):
    push_to_hub(house(), "me/house")
    folder = Path(snapshot_download("me/house", cache_dir=constants.HF_HUB_CACHE))
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    held = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=True).stdout
    weights = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    assert len(weights) == 3
    assert held.splitlines() == [f"{name}: OK" for name in weights]
    (folder / WEIGHTS).write_bytes(b"x")
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode == 1


def test_half_precision_halves_what_is_uploaded_and_leaves_the_model_alone(hub):
    model = house(r=16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    push_to_hub(model, "me/full")
    push_to_hub(model, "me/half", dtype="bfloat16")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    full, half = (hub.repos[name].files() for name in ("me/full", "me/half"))
    for name in (WEIGHTS, f"lora/loud/{WEIGHTS}"):
        wanted, given = load(full[name]), load(half[name])
        assert set(wanted) == set(given)
        for key, tensor in wanted.items():
            same = tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
            assert torch.equal(given[key], same), key
    ours = PeftModel.from_pretrained(llama(), "me/half").eval()
    stock = PeftModel.from_pretrained(llama(), "me/half", subfolder="lora/loud").eval()
    for loaded, style in ((ours, {"styles": "loud"}), (stock, {})):
        torch.testing.assert_close(logits(loaded, **style), logits(model, styles="loud"), atol=0.05, rtol=0.05)


def test_weights_beyond_the_bound_are_refused_before_anything_is_uploaded(hub):
    model = house(r=16)
    size = len(stored(hub, model)[WEIGHTS]) / 1e6
    with pytest.raises(ValueError, match=rf"{WEIGHTS} of {size:.1f} MB must be <= 0.01 MB; halve it with dtype='bfl"):
        push_to_hub(model, "me/house", max_megabytes=0.01)
    with pytest.raises(ValueError, match="dtype='int3' must be one of float32, bfloat16, float16, or left out"):
        push_to_hub(model, "me/house", dtype="int3")
    assert "me/house" not in hub.repos
    push_to_hub(model, "me/house", max_megabytes=size + 0.001)
    assert WEIGHTS in hub.repos["me/house"].files()


def stored(hub: Hub, model: PeftModel) -> dict[str, bytes]:
    """What a push of `model` without a bound uploads."""
    push_to_hub(model, "me/stored")
    return hub.repos["me/stored"].files()


# Runs


@pytest.mark.filterwarnings("ignore:base_model_name_or_path=.* names none:UserWarning")
def test_trainer_pushes_adapter_card_and_loras_and_no_secret(hub, tmp_path):
    llama().save_pretrained(tmp_path / "base")
    model = adapted()
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    options = {"push_to_hub": True, "hub_model_id": "me/run", "hub_token": hub.token, "hub_private_repo": True}
    options |= {"save_strategy": "steps", "save_steps": 1.0}
    trainer = make_trainer(tmp_path / "run", model=model, **options)
    trainer.train()
    trainer.push_to_hub()
    repo = hub.repos["me/run"]
    assert repo.private
    files = repo.files()
    assert {"README.md", WEIGHTS, "discriminator.safetensors", "tokenizer.json", f"lora/calm/{WEIGHTS}"} <= set(files)
    assert files["README.md"].decode().count("me/run") >= 3
    everything = {f"{sha} {name}": data for sha, held in repo.commits.items() for name, data in held.items()}
    assert [name for name in everything if "training_args.bin" in name]  # Trainer's own, at each checkpoint
    assert not holds(everything, hub.token)
    assert hub.token.encode() in pickle.dumps(TrainingArguments(str(tmp_path), hub_token=hub.token))  # as it would be
    assert holds(files, str(tmp_path)) == ["training_args.bin"]
    future = trainer.push_to_hub(blocking=False)
    assert future.result().oid in repo.commits
    assert trainer.args.hub_token == hub.token


def test_a_run_from_the_terminal_pushes_its_report(hub, tmp_path):
    with_base(hub, tmp_path)
    rows = [{"source": "ab", "target": "AB!", "style": "loud"}, {"source": "ab", "target": "ab.", "style": "calm"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    options = {"model_name_or_path": tmp_path / "base", "base_model_id": BASE, "train_file": tmp_path / "rows.jsonl"}
    options |= {"styles": "[loud, calm]", "r": 4, "output_dir": tmp_path / "run", "max_steps": 1, "use_cpu": "true"}
    options |= {"report_to": "none", "save_strategy": "no", "disable_tqdm": "true", "logging_steps": 1}
    options |= {"dataloader_pin_memory": "false", "adversary_fraction": 0}
    options |= {"push_to_hub": "true", "hub_model_id": "me/run", "hub_token": hub.token}
    assert main(["train", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]) == 0
    files = hub.repos["me/run"].files()
    assert {"losses.png", "styles.png", "README.md", f"lora/loud/{WEIGHTS}"} <= set(files)
    assert "- `r`: 4" in files["README.md"].decode()
    assert "# me/run\n" in files["README.md"].decode()
    assert not holds(files, str(tmp_path))
    assert not holds(files, hub.token)
    assert hub.token not in (tmp_path / "run" / "README.md").read_text("utf-8")


def test_push_sends_a_run_with_its_numbers_under_the_repos_name(hub, tmp_path, capsys):
    with_base(hub, tmp_path)
    model, run = house(), tmp_path / "run"
    model.save_pretrained(run)
    byte_tokenizer().save_pretrained(run)
    write_card(model, run, numbers="| 45.6 |", recipe={"r": 8})
    (run / "README.md").write_text((run / "README.md").read_text("utf-8") + "\n## By hand\n", "utf-8")
    (run / "checkpoint-1").mkdir()
    for name in ("losses.png", "training_args.bin", "rows.jsonl", "checkpoint-1/losses.png"):
        (run / name).touch()
    capsys.readouterr()
    push = ["push", str(run), "me/run", "--base", str(tmp_path / "base")]
    assert main([*push, "--max-megabytes", "0.01"]) == 2
    assert "MB must be <= 0.01 MB; halve it with dtype='bfloat16' (--dtype bfloat16)" in capsys.readouterr().err
    assert "me/run" not in hub.repos
    assert main([*push, "--private", "--revision", "v1", "--dtype", "float32"]) == 0
    assert capsys.readouterr().out.strip().endswith(hub.repos["me/run"].branches["v1"])
    repo = hub.repos["me/run"]
    assert repo.private
    assert repo.files() == {}  # main
    files = repo.files("v1")
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    exports = {name for name in files if name.startswith("lora/")}
    top = {"README.md", "adapter_config.json", WEIGHTS, "SHA256SUMS", "losses.png"}
    assert set(files) == top | tokenizer | exports
    assert len(exports) == 4
    text = files["README.md"].decode()
    assert "| 45.6 |" in text
    assert "- `r`: 8" in text
    assert text.endswith("## By hand")
    assert "# me/run\n" in text
    assert 'load("me/run")' in text
    assert not holds(files, str(tmp_path))
    loaded = PeftModel.from_pretrained(llama(), "me/run", revision="v1").eval()
    assert torch.equal(logits(loaded), logits(model))


def test_a_refused_push_ends_in_one_line(hub, tmp_path, capsys, monkeypatch):
    llama().save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    house().save_pretrained(tmp_path / "run")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    capsys.readouterr()
    assert main(["push", str(tmp_path / "run"), "me/run", "--base", str(tmp_path / "base")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("style-adapter push: ")
    assert "401" in error
