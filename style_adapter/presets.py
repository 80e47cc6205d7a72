"""What a recipe starts from where its task has options that suit most runs; YAML and options come on top."""

from collections.abc import Mapping
from typing import Any

from .piles import named_files

PRESETS: dict[str, dict[str, Any]] = {
    "unpaired": {
        "model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "dtype": "bfloat16",
        "instruction": "Rewrite: {source}",
        "r": 16,
        "alpha": 32.0,
        "output_dir": "out",
        "num_train_epochs": 1.0,
        "max_train_rows": 40_000,  # 5,000 steps
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 20.0,
        "marker_threshold": 5.0,  # texts are rebuilt without the n-grams that tell their style
        "w_adv": 0.5,
        "w_feat": 0.1,
        "w_cls": 0.5,
        "adversary_start": 100,  # steps of rebuilding alone
        "discriminator_blocks": 8,
        "discriminator_learning_rate": 1e-3,
        "bf16": True,
        "train_sampling_strategy": "group_by_length",
        "save_total_limit": 2,
    }
}
# On top of it for piles of text, of which a teacher makes pairs: their likelihood leads, the adversary adds boldness.
TAUGHT: dict[str, Any] = {
    "teacher": "edits",
    "rounds": 0,  # of learning from the best drafts
    "novel_token_weight": 4.0,  # a copied word is easily learnt, one that is put in is not
    "w_adv": 1.0,
    "w_feat": 0.0,
    "w_cls": 0.0,
    "adversary_start": 40,
    "discriminator_kind": "fake_class",
    "discriminator_blocks": 10,
}
_EVALUATED = {"eval_strategy": "steps", "eval_steps": 0.25, "per_device_eval_batch_size": 32}


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` on top of what its task starts from; piles of text name the task and the styles.

    Raises:
        ValueError: Options that contradict the piles.
    """
    if given.get("unpaired") is not None:
        given = {**given, **_of_piles(given)}
    start = PRESETS.get(str(given.get("task")), {})
    if given.get("unpaired") is not None and given.get("teacher") != "none":
        start = {**start, **TAUGHT}
    if start and (given.get("eval_file") or given.get("unpaired")):
        start = {**start, **_EVALUATED}
    return {**start, **given}


def _of_piles(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the piles say, as far as nothing else is given."""
    if not isinstance(given["unpaired"], (list, dict)):
        raise ValueError(
            f"unpaired={given['unpaired']!r} must be a list of files, or {{style: file}}; correct it in the recipe"
        )
    files = named_files(given["unpaired"])
    if (task := given.get("task", "unpaired")) != "unpaired":
        raise ValueError(f"task={task!r} must be 'unpaired', or left out, where unpaired names the files")
    styles = given.get("styles") or list(files)
    for style, path in files.items():
        if style not in styles:
            raise ValueError(
                f"unpaired: {path} is of the style {style!r}, which must be one of styles={styles}; name it: "
                f"--unpaired {styles[0]}={path}, or leave out styles"
            )
    return {"unpaired": files, "task": task, "styles": styles}
