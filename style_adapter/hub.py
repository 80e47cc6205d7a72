"""To the hub: adapter, card, plots, and each style as a plain LoRA for people without this package."""

import json
import os
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.utils import validate_repo_id
from peft import PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from safetensors.torch import save_file

from .card import beyond_lora, hub_base, write_card
from .config import StyleAdapterConfig
from .disk import digest
from .export import export_lora

MOST_EXPORTS = 32  # each is as large as the adapter itself
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CHECKSUMS = "SHA256SUMS"  # as `sha256sum --check` reads it
# What of a run's folder goes along. Neither checkpoints nor training_args.bin nor trainer_state.json: those hold paths
# of this machine, and a pickle is nothing to hand to strangers.
SHARED = "README.md metrics.json *.png discriminator.safetensors tokenizer* vocab.* merges.txt special_tokens_map.json "
SHARED += "added_tokens.json chat_template.jinja *.model"


def push_to_hub(  # noqa: PLR0913 - one option a property of the repo or of what stands in it
    model: PeftModel,
    repo_id: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    styles: Sequence[str] | None = None,
    base_model_id: str | None = None,
    dtype: str | None = None,
    max_megabytes: float | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    **commit: Any,
) -> CommitInfo:
    """Uploads the active adapter, its card and a plain LoRA of each style; `model.push_to_hub(...)` does the same.

    The repo holds the adapter at its top whatever its name here, `lora/<style>/` for stock PEFT, vLLM or diffusers
    (`subfolder="lora/kjv"`), a card that tells both ways, and the checksums of all weights in `SHA256SUMS`. Styles that
    are no more leave `lora/`.

    Args:
        model: A model with a style adapter.
        repo_id: Such as `"me/kjv-style"`; made if missing.
        folder: A run's folder: its tokenizer, plots, metrics, discriminator and the numbers of its card go along.
        styles: Which styles also go as plain LoRAs; all of them (the first 32) if left out, `[]` for none. An adapter
            that trained biases or whole modules has none, and the card says so.
        base_model_id: Hub id of the backbone, where it was loaded from a local folder.
        dtype: Precision of the uploaded adapter and LoRAs, "bfloat16" for half of the bytes; as they are if left out.
        max_megabytes: Bound of each file of weights, in millions of bytes; none if left out.
        private: Whether a new repo is private; the account's default if left out.
        token: The one that `hf auth login` or HF_TOKEN left if not given.
        revision: A branch, made if missing; `main` if left out.
        **commit: `commit_message`, `commit_description`, `create_pr`, as `HfApi.upload_folder` has them.

    Returns:
        The commit, which is also the text of its address.

    Raises:
        ValueError: Unknown styles, a `base_model_id` that is no hub id, an unknown `dtype`, or weights beyond
            `max_megabytes`; nothing is uploaded then.
        HfHubHTTPError: What the hub refuses: no such account, a token without the right to write.
    """
    if base_model_id is not None:
        validate_repo_id(base_model_id)
    api, message = HfApi(token=token), commit.pop("commit_message", None) or "Upload style adapter"
    with TemporaryDirectory() as stage:
        stage_adapter(model, stage, repo_id, folder=folder, styles=styles, base_model_id=base_model_id, dtype=dtype)
        check_sizes(stage, max_megabytes)
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not revision.startswith("refs/pr/"):
            api.create_branch(repo, branch=revision, exist_ok=True)
        return api.upload_folder(
            repo_id=repo,
            folder_path=stage,
            revision=revision,
            delete_patterns=["lora/*"],
            commit_message=message,
            **commit,
        )


def stage_adapter(
    model: PeftModel,
    stage: str | os.PathLike[str],
    repo_id: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    styles: Sequence[str] | None = None,
    base_model_id: str | None = None,
    dtype: str | None = None,
) -> None:
    """Writes into the folder `stage` what `push_to_hub` uploads; the arguments are its own."""
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}, or left out")
    adapter, root = model.active_adapters[0], Path(stage)
    config = model.peft_config[adapter]
    assert isinstance(config, StyleAdapterConfig)
    if folder is not None:
        for path in (path for pattern in SHARED.split() for path in Path(folder).glob(pattern) if path.is_file()):
            shutil.copy(path, root)
    model.save_pretrained(str(root), selected_adapters=[adapter])
    if adapter != "default":  # PEFT keeps the others in folders of their own
        shutil.copytree(root / adapter, root, dirs_exist_ok=True)
        shutil.rmtree(root / adapter)
    lora = _export_styles(model, root, config.styles[:MOST_EXPORTS] if styles is None else styles)
    _record_base(root, repo_id, base_model_id)
    write_card(model, root, repo=repo_id, lora=lora, base_model_id=base_model_id)
    if dtype is not None:
        for path in root.rglob(SAFETENSORS_WEIGHTS_NAME):
            _cast(path, DTYPES[dtype])
    sums = {p.relative_to(root).as_posix(): digest(p) for p in _weights(root)}
    (root / CHECKSUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()), "utf-8")


def check_sizes(folder: str | os.PathLike[str], max_megabytes: float | None) -> None:
    """Refuses a folder that holds a file of weights beyond the bound.

    Raises:
        ValueError: The message names the largest such file.
    """
    sizes = {path: path.stat().st_size / 1e6 for path in _weights(Path(folder))}
    largest = max(sizes, key=sizes.__getitem__)
    if max_megabytes is not None and sizes[largest] > max_megabytes:
        raise ValueError(
            f"{largest.relative_to(folder).as_posix()} of {sizes[largest]:.1f} MB must be <= {max_megabytes:g} MB; "
            "halve it with dtype='bfloat16' (--dtype bfloat16), or train with a lower r or fewer target_modules"
        )


def _weights(root: Path) -> list[Path]:
    """Every file of weights below `root`, in the order of their names."""
    return sorted(root.rglob("*.safetensors"))


def _cast(path: Path, dtype: torch.dtype) -> None:
    """Writes the file anew with its floating tensors in `dtype`; what is no number, such as a description, stays."""
    with safe_open(path, framework="pt") as held:
        metadata, tensors = held.metadata(), {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    save_file({n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}, path, metadata=metadata)


def _export_styles(model: PeftModel, root: Path, styles: Sequence[str]) -> dict[str, str]:
    """Writes a plain LoRA of each style below `root`; their folders, none where a LoRA would lose something."""
    config = model.peft_config[model.active_adapters[0]]
    assert isinstance(config, StyleAdapterConfig)
    if unknown := [style for style in styles if style not in config.styles]:
        raise ValueError(f"styles={unknown} must be some of the adapter's styles: {', '.join(config.styles)}")
    if beyond_lora(config):
        return {}
    folders = lora_folders(styles)
    try:
        for style, subfolder in folders.items():
            export_lora(model, root / subfolder, style=style)
    except ValueError as error:
        warnings.warn(f"the repo gets no lora/: {error}", stacklevel=4)
        shutil.rmtree(root / "lora", ignore_errors=True)
        return {}
    return folders


def lora_folders(styles: Sequence[str]) -> dict[str, str]:
    """Each style's folder: its name, without what some file system or the hub's client cannot hold.

    Example:
        >>> lora_folders(["kjv", "KJV", ".git", "who?"])
        {'kjv': 'lora/kjv', 'KJV': 'lora/KJV-2', '.git': 'lora/git', 'who?': 'lora/who_'}
    """
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for style in styles:
        name = plain = re.sub(r'[<>:"|?*%#\x00-\x1f]', "_", style).strip(" .") or "_"
        number = 1
        while name.casefold() in taken:  # one folder on a file system that does not tell KJV from kjv
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        folders[style] = f"lora/{name}"
    return folders


def _record_base(root: Path, repo_id: str, base_model_id: str | None) -> None:
    """The backbone's hub id in every config below `root`, or none: a path of this machine helps nobody else."""
    for path in root.rglob(CONFIG_NAME):
        written = json.loads(path.read_text("utf-8"))
        given = written["base_model_name_or_path"]
        written["base_model_name_or_path"] = base_model_id or hub_base(given)
        path.write_text(json.dumps(written, indent=2, sort_keys=True), "utf-8")
        if path.parent == root and written["base_model_name_or_path"] is None:
            warnings.warn(
                f"base_model_name_or_path={given!r} must be a hub id for others to find the backbone, so {repo_id} "
                "names none; push again with base_model_id='owner/name'",
                stacklevel=4,
            )
