"""A recipe carried out: backbone, data, trainer, and everything a finished run leaves in its folder."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from accelerate.utils import gather_object, release_memory
from peft import PeftModel, TaskType, get_peft_model
from transformers import AutoTokenizer, PreTrainedTokenizerBase, set_seed

from .card import write_card
from .config import HEADS
from .data import chat_prompt, check_rows, compares, kind_of_rows
from .inference import ensure_padding, load_backbone
from .metrics import StyleJudge
from .model import styles_of
from .piles import columns_of, hold_out, named_files, read_piles
from .plots import plot_losses, plot_styles
from .recipe import Recipe
from .seeds import row_seed
from .self_training import best_pairs
from .stages import Stage, stages_of
from .style import StyleBank
from .teacher import EditTeacher, Halves, Pair, in_turn
from .trainer import StyleTrainer

JUDGED = 20_000  # texts that a judge is taught on, of two piles of any size


def run(recipe: Recipe) -> str:
    """Trains what `recipe` says; adapter, discriminator, tokenizer, card and plots stand in its `output_dir`.

    Returns:
        The folder.
    """
    texts, args = Texts.of(recipe), recipe.training
    *earlier, last = stages_of(recipe)  # one; where there are rounds, the teacher's and then one each
    for stage in earlier:
        _carried_out(stage, texts)
        release_memory()  # a trainer and its model hold one another
    trainer = _carried_out(last, texts)
    trainer.args = args  # what is left behind is the run's, not its last round's
    trainer.save_model()
    if trainer.is_world_process_zero():
        write_report(trainer, recipe=recipe.given)
    if args.push_to_hub:  # once more: save_model could not send the report
        trainer.push_to_hub()
    return str(args.output_dir)


@dataclass(frozen=True)
class Texts:
    """What all stages of a run train on, and what they are judged by.

    Attributes:
        rows: As they were read.
        held_out: Rows to evaluate on, if any.
        halves: The same texts as a teacher hears and rewrites them; None without a teacher.
        judge: Of texts that were written by people: taught on pairs, it would know the teacher's hand.
    """

    rows: datasets.Dataset
    held_out: datasets.Dataset | None
    halves: Halves | None = None
    judge: StyleJudge | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> "Texts":
        """What `recipe` names.

        Raises:
            ValueError: Rows that its task cannot use, or a teacher for rows that have targets.
        """
        rows, held_out = read_rows(recipe)
        check_rows(rows, recipe.training.task, name=recipe.data.train_file or "unpaired")
        if recipe.data.teacher == "none":
            return cls(rows, held_out)
        if kind_of_rows(rows, recipe.training.task) != "unpaired":
            raise ValueError(
                f"teacher='edits' must be 'none' for task={recipe.training.task!r} with the columns "
                f"{', '.join(rows.column_names)}: it makes pairs of text and style alone; leave it out"
            )
        seed, labels = recipe.training.seed, _labels(rows, recipe)
        some = rows.shuffle(seed=seed).select(range(min(JUDGED, len(rows))))
        judge = StyleJudge.fit(some["text"], _labels(some, recipe))
        return cls(rows, held_out, Halves(list(rows["text"]), labels, seed), judge)


def _carried_out(stage: Stage, texts: Texts) -> StyleTrainer:
    """The trainer of a stage after its training."""
    recipe = stage.recipe
    set_seed(recipe.training.seed)  # before the adapter's random start
    model, tokenizer = build(recipe, texts.rows, start=stage.start)
    rows = texts.rows
    if texts.halves is not None:
        rows = stage.kept(partial(_pairs, stage, texts.halves, model, tokenizer))
        if stage.number and not compares(rows):
            recipe.training.w_pref = 0.0  # every draft was the best one, which is no mistake of the user's
    trainer = StyleTrainer(
        model=model,
        args=recipe.training,
        train_dataset=_some_rows(rows, recipe),
        eval_dataset=texts.held_out,
        processing_class=tokenizer,
        judge=texts.judge,
    )
    stage.carry_out(trainer)
    return trainer


def _pairs(stage: Stage, halves: Halves, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> list[Pair]:
    """What a stage learns from: the teacher's pairs, some more than may be trained on; in a round the best drafts."""
    recipe, most = stage.run, stage.run.data.max_train_rows
    count = len(halves.texts) if most is None else 1 + most * 2 // 3
    if not stage.number:
        _say(recipe, f"The teacher reads {len(halves.texts):,} texts.")
        pairs = halves.pairs(count)
        _say(recipe, f"The teacher made {len(pairs):,} pairs.")
        return pairs
    rows = recipe.rounds.round_rows
    texts, styles = halves.unheard(count + (stage.number - 1) * rows, rows)  # on from where earlier stages stopped
    pairs = _of_drafts(stage, halves.teacher, model, tokenizer, texts=texts, styles=styles)
    _say(recipe, f"Round {stage.number}: {len(texts):,} texts gave {len(pairs):,} pairs.")
    if not pairs:
        raise ValueError(
            f"round_rows={rows} gave no pair, since no rewrite scores above 0; give more texts, or set "
            f"rounds={stage.number - 1}"
        )
    return pairs


def _of_drafts(
    stage: Stage, teacher: EditTeacher, model: PeftModel, tokenizer: PreTrainedTokenizerBase, **texts: list[str]
) -> list[Pair]:
    """The pairs of texts and the best rewrites of them; each process rewrites its share, and all get the whole."""
    args = stage.run.training
    columns = {**texts, "wanted": in_turn(texts["styles"], teacher.languages)}
    with PartialState().split_between_processes(columns) as mine:
        offers = teacher.rewrites(mine["texts"], mine["wanted"], 1)
        pairs = best_pairs(
            model.to(args.device),
            tokenizer,
            **mine,
            score=teacher.score,
            others=[[rewrite.text for rewrite in found] for found in offers],
            samples=stage.run.rounds.round_samples,
            seed=row_seed(args.seed, stage.number, args.process_index, use="round"),
            batch_size=args.generation_batch_size,
        )
    return gather_object(pairs)


def write_report(trainer: StyleTrainer, *, recipe: Mapping[str, Any], numbers: str = "") -> None:
    """Trainer's state, the card and, where matplotlib is installed, the plots, into the run's folder.

    Args:
        trainer: After training.
        recipe: What the run was, option by option; paths of this machine are left out of the card.
        numbers: Markdown with the measured table.
    """
    folder = str(trainer.args.output_dir)
    trainer.save_state()
    try:
        plot_losses(trainer.state.log_history, os.path.join(folder, "losses.png"))
        plot_styles(trainer.state.log_history, os.path.join(folder, "styles.png"))
    except ImportError as error:
        print(f"No plots: {error}")
    write_card(trainer.style_model, folder, recipe=recipe, numbers=numbers, data=_described(trainer))


def _described(trainer: StyleTrainer) -> str:
    """How many rows of each style a run has trained on."""
    rows = trainer.train_dataset
    if not isinstance(rows, datasets.Dataset):
        return ""
    if "style" not in rows.column_names or rows["style"][0] is None:
        return f"{len(rows):,} rows."
    counts = Counter(styles_of(trainer.style_model).labels(rows["style"]))
    listed = [f"{count:,} of {label}" for label, count in counts.most_common(20)]
    return f"{len(rows):,} rows: {', '.join(listed)}{', ...' if len(counts) > len(listed) else ''}."


def build(recipe: Recipe, rows: Any, *, start: str | None = None) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """The backbone with a fresh adapter, or with the one in the folder `start`, and its tokenizer."""
    task = recipe.training.task
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
    if start is not None:
        return PeftModel.from_pretrained(backbone, start, is_trainable=True), tokenizer
    if recipe.model.instruction is not None and "prompt" not in recipe.given:
        recipe.adapter.prompt = chat_prompt(tokenizer, recipe.model.instruction) or recipe.adapter.prompt
    recipe.adapter.task_type = _task_type(recipe, backbone.config.is_encoder_decoder)
    return get_peft_model(backbone, recipe.adapter), tokenizer


def read_rows(recipe: Recipe) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """The rows that `recipe` names, and those to evaluate on: its `eval_file`, or what is held out of piles."""
    data = recipe.data
    given = load_rows(data.eval_file, split=data.eval_split) if data.eval_file else None
    if data.train_file is not None:
        return load_rows(data.train_file, split=data.train_split), given
    piles = read_piles(named_files(data.unpaired or []))
    _say(recipe, *map(str, piles))
    if given is not None:
        return datasets.Dataset.from_dict(columns_of(piles)), given
    piles, held_out = hold_out(piles, seed=recipe.training.seed)
    counts = ", ".join(f"{len(pile.texts):,} {pile.style}" for pile in held_out)
    _say(recipe, f"Held out to evaluate on: {counts}.")
    return datasets.Dataset.from_dict(columns_of(piles)), datasets.Dataset.from_dict(columns_of(held_out))


def _labels(rows: datasets.Dataset, recipe: Recipe) -> list[str]:
    """The style of each row as a judge knows it."""
    return StyleBank(tuple(recipe.adapter.styles)).labels(rows["style"])


def _some_rows(rows: datasets.Dataset, recipe: Recipe) -> datasets.Dataset:
    """At most `max_train_rows` of the rows, drawn by the run's seed."""
    most = recipe.data.max_train_rows
    if most is None or len(rows) <= most:
        return rows
    _say(recipe, f"Training on {most:,} of {len(rows):,} rows (max_train_rows).")
    return rows.shuffle(seed=recipe.training.seed).select(range(most))


def _say(recipe: Recipe, *lines: str) -> None:
    """To the terminal, by one process, and not where a high log level asks for silence."""
    if recipe.training.process_index == 0 and recipe.training.get_process_log_level() <= logging.WARNING:
        print(*lines, sep="\n")


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
