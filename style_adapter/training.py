"""A recipe carried out: backbone, data, trainer, and everything a finished run leaves in its folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from peft import PeftModel, TaskType, get_peft_model
from transformers import AutoTokenizer, PreTrainedTokenizerBase, set_seed

from .card import write_card
from .data import check_rows
from .pipeline import ensure_padding, load_backbone
from .plots import plot_losses, plot_styles
from .recipe import Recipe
from .trainer import StyleTrainer

# The heads of tasks that write no text; those that do keep the language model's own.
HEADS = {"classification": "SEQ_CLS", "token_classification": "TOKEN_CLS", "masked_lm": "MASKED_LM"}


def run(recipe: Recipe) -> str:
    """Trains what `recipe` says; adapter, discriminator, tokenizer, card and plots stand in its `output_dir`.

    Returns:
        The folder.
    """
    args = recipe.training
    set_seed(args.seed)  # before the adapter's random start
    rows = load_rows(recipe.data.train_file, split=recipe.data.train_split)
    held_out = recipe.data.eval_file and load_rows(recipe.data.eval_file, split=recipe.data.eval_split)
    model, tokenizer = build(recipe, rows)
    trainer = StyleTrainer(
        model=model, args=args, train_dataset=rows, eval_dataset=held_out or None, processing_class=tokenizer
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    if trainer.is_world_process_zero():
        write_report(trainer, recipe=recipe.given)
    if args.push_to_hub:  # once more: save_model could not send the report
        trainer.push_to_hub()
    return str(args.output_dir)


def write_report(trainer: StyleTrainer, *, recipe: Mapping[str, Any], numbers: str = "") -> None:
    """Trainer's state, the card and, where matplotlib is installed, the plots, into the run's folder.

    Args:
        trainer: After training.
        recipe: What the run was, option by option; paths of this machine are left out of the card.
        numbers: Markdown with the measured table.
    """
    folder = str(trainer.args.output_dir)
    trainer.save_state()
    write_card(trainer.style_model, folder, recipe=recipe, numbers=numbers)
    try:
        plot_losses(trainer.state.log_history, os.path.join(folder, "losses.png"))
        plot_styles(trainer.state.log_history, os.path.join(folder, "styles.png"))
    except ImportError as error:
        print(f"No plots: {error}")


def build(recipe: Recipe, rows: Any) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """The backbone with a fresh adapter, and its tokenizer."""
    task = recipe.training.task
    check_rows(rows, task, name=recipe.data.train_file)
    backbone = load_backbone(
        recipe.model.model_name_or_path,
        task_type=HEADS.get(task),
        dtype=recipe.model.dtype,
        load_in_4bit=recipe.model.load_in_4bit,
        num_labels=_class_count(rows, task),
    )
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.model_name_or_path)
    if recipe.model.base_model_id:
        backbone.name_or_path = backbone.config._name_or_path = recipe.model.base_model_id
    ensure_padding(backbone, tokenizer)
    recipe.adapter.task_type = _task_type(recipe, backbone.config.is_encoder_decoder)
    return get_peft_model(backbone, recipe.adapter), tokenizer


def load_rows(source: str, *, split: str = "train") -> datasets.Dataset:
    """Rows of a jsonl, json, csv or parquet file, or of a hub data set.

    Raises:
        ValueError: A file of another kind; the known ones are listed.
        FileNotFoundError: Something that looks like a file and is none.
    """
    readers = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
    suffix = Path(source).suffix
    if suffix in readers:
        if not os.path.exists(source):
            raise FileNotFoundError(f"{source} does not exist; give the path of a {', '.join(readers)} file")
        return datasets.load_dataset(readers[suffix], data_files=source, split="train")
    if os.path.exists(source) and not os.path.isdir(source):
        raise ValueError(f"{source} must end in one of {', '.join(readers)}; rename or convert it")
    return datasets.load_dataset(source, split=split)


def _class_count(rows: Any, task: str) -> int | None:
    """How many classes the labels of `rows` name; None for a task without classes."""
    if task == "classification":
        return max(rows["label"]) + 1
    if task == "token_classification":
        return max(label for labels in rows["label"] for label in labels) + 1
    return None


def _task_type(recipe: Recipe, encoder_decoder: bool) -> TaskType | None:
    """PEFT's name for the head; None for masked language models, for which it has none and records their class instead.

    Raises:
        ValueError: The recipe says another.
    """
    head = HEADS.get(recipe.training.task) or ("SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM")
    fitting = None if head == "MASKED_LM" else TaskType(head)
    if recipe.adapter.task_type not in (None, fitting):
        raise ValueError(
            f"task_type={str(recipe.adapter.task_type)!r} must be {fitting and fitting.value!r} for "
            f"task={recipe.training.task!r}; leave it out"
        )
    return fitting
