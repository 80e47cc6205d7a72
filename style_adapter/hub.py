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

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.utils import validate_repo_id
from peft import PeftModel
from peft.utils import CONFIG_NAME

from .card import beyond_lora, hub_base, write_card
from .config import StyleAdapterConfig
from .export import export_lora

MOST_EXPORTS = 32  # each is as large as the adapter itself
# What of a run's folder goes along. Neither checkpoints nor training_args.bin nor trainer_state.json: those hold paths
# of this machine, and a pickle is nothing to hand to strangers.
SHARED = "README.md metrics.json *.png discriminator.safetensors tokenizer* vocab.* merges.txt special_tokens_map.json "
SHARED += "added_tokens.json chat_template.jinja *.model"


def push_to_hub(
    model: PeftModel,
    repo_id: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    styles: Sequence[str] | None = None,
    base_model_id: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    **commit: Any,
) -> CommitInfo:
    """Uploads the active adapter, its card and a plain LoRA of each style; `model.push_to_hub(...)` does the same.

    The repo holds the adapter at its top whatever its name here, `lora/<style>/` for stock PEFT, vLLM or diffusers
    (`subfolder="lora/kjv"`), and a card that tells both ways. Styles that are no more leave `lora/`.

    Args:
        model: A model with a style adapter.
        repo_id: Such as `"me/kjv-style"`; made if missing.
        folder: A run's folder: its tokenizer, plots, metrics, discriminator and the numbers of its card go along.
        styles: Which styles also go as plain LoRAs; all of them (the first 32) if left out, `[]` for none. An adapter
            that trained biases or whole modules has none, and the card says so.
        base_model_id: Hub id of the backbone, where it was loaded from a local folder.
        private: Whether a new repo is private; the account's default if left out.
        token: The one that `hf auth login` or HF_TOKEN left if not given.
        revision: A branch, made if missing; `main` if left out.
        **commit: `commit_message`, `commit_description`, `create_pr`, as `HfApi.upload_folder` has them.

    Returns:
        The commit, which is also the text of its address.

    Raises:
        ValueError: Unknown styles, or a `base_model_id` that is no hub id.
        HfHubHTTPError: What the hub refuses: no such account, a token without the right to write.
    """
    if base_model_id is not None:
        validate_repo_id(base_model_id)
    api, message = HfApi(token=token), commit.pop("commit_message", None) or "Upload style adapter"
    with TemporaryDirectory() as stage:
        stage_adapter(model, stage, repo_id, folder=folder, styles=styles, base_model_id=base_model_id)
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
) -> None:
    """Writes into the folder `stage` what `push_to_hub` uploads; the arguments are its own."""
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
