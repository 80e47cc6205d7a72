"""A run in stages, each from where the one before ended, and taken up in the stage in which it was killed."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import and_
from pathlib import Path
from typing import Any

import datasets
from accelerate.utils import broadcast_object_list
from transformers import TrainerState
from transformers.integrations import is_deepspeed_zero3_enabled, is_fsdp_enabled
from transformers.trainer import TRAINER_STATE_NAME

from .disk import write_whole
from .recipe import Recipe, load_recipe
from .teacher import Pair
from .trainer import StyleTrainer, write_manifest
from .trainer.files import load_judge
from .trainer.manifest import discard, flaw_of

_NAME = re.compile(r"round-\d+")
_PAIRS = "pairs.jsonl"


@dataclass(frozen=True)
class Stage:
    """The training on one set of rows.

    A run without rounds is one stage, in the run's own folder. With rounds each stage has `round-N` there, with its
    pairs, its checkpoints and, once it has ended, its adapter and its discriminator: each whole or not there at all.

    Attributes:
        number: N: 0 for the teacher's pairs, from 1 on for those of a round.
        run: The recipe of all stages.
        ended: Whether it was carried out before this session.
    """

    number: int
    run: Recipe
    ended: bool = False

    @cached_property
    def recipe(self) -> Recipe:
        """The run's recipe as this stage has it: a folder of its own, and in a round its rates and its length."""
        if not self.run.rounds.rounds:
            return self.run
        # Made anew, and not before its turn: the arguments of a trainer set up Accelerate for it.
        changes = {"output_dir": str(self._folder), "push_to_hub": False}
        return load_recipe(None, self.run.given | changes | (self._of_round() if self.number else {}))

    @property
    def start(self) -> str | None:
        """The folder of the adapter to begin from: that of the stage before, or its own if it has ended."""
        if self.ended:
            return str(self._adapter)
        return str(Stage(self.number - 1, self.run)._adapter) if self.number else None

    def kept(self, make: Callable[[], list[Pair]]) -> datasets.Dataset:
        """The rows of its file; made first where the file is missing."""
        if not self.run.rounds.rounds:
            return datasets.Dataset.from_list(make())
        path = self._folder / _PAIRS
        found: list[Any] = [_read(path) if self._writes and path.exists() else None]
        (rows,) = broadcast_object_list(found)
        if rows is None:
            rows = make()
            if self._writes:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
        return datasets.Dataset.from_list(rows)

    def carry_out(self, trainer: StyleTrainer) -> None:
        """Trains, against the discriminator as it was at `start`, and leaves both sides; nothing if it has ended."""
        if self.start is not None:
            load_judge(trainer.model, self.start)
        if self.ended:
            trainer.state = TrainerState.load_from_json(str(self._adapter / TRAINER_STATE_NAME))
            return
        trainer.train(resume_from_checkpoint=self.run.training.resume_from_checkpoint)
        if self.run.rounds.rounds:
            self._leave(trainer)

    def has_ended(self) -> bool:
        """Whether its adapter stands, whole."""
        return self.run.rounds.rounds > 0 and flaw_of(self._adapter) is None

    def _of_round(self) -> dict[str, Any]:
        """The options of a round: slower, shorter, and against a discriminator that knows the game already."""
        args, rounds = self.run.training, self.run.rounds
        changes: dict[str, Any] = {"learning_rate": args.learning_rate * rounds.round_rate, "adversary_start": 0}
        if args.gate_learning_rate is not None:
            changes["gate_learning_rate"] = args.gate_learning_rate * rounds.round_rate
        changes |= {"max_steps": -1, "num_train_epochs": rounds.round_epochs}
        return changes | {"w_pref": rounds.round_preference}

    def _leave(self, trainer: StyleTrainer) -> None:
        """Both sides and the state; then what vouches for them."""
        if self._writes:
            discard(self._adapter)
        trainer.accelerator.wait_for_everyone()
        trainer.save_model(str(self._adapter))
        if self._writes:
            trainer.state.save_to_json(str(self._adapter / TRAINER_STATE_NAME))
            write_manifest(self._adapter)
        trainer.accelerator.wait_for_everyone()  # all begin the next stage from these files

    @property
    def _folder(self) -> Path:
        """Of this stage, in a run with rounds."""
        return Path(str(self.run.training.output_dir)) / f"round-{self.number}"

    @property
    def _adapter(self) -> Path:
        """Where the stage leaves both sides."""
        return self._folder / "adapter"

    @property
    def _writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.run.training.process_index == 0


def stages_of(run: Recipe) -> list[Stage]:
    """What is left of a run: the stages that have not ended and, in any case, the last one, which is reported.

    Raises:
        ValueError: Rounds where not every process has the weights to write texts with, or stages of an earlier run
            in a folder from which nothing is resumed: none of it is deleted for the asking.
    """
    count, args = run.rounds.rounds, run.training
    # transformers' name: FSDP whose weights one process alone has read (cpu_ram_efficient_loading).
    if count and (is_deepspeed_zero3_enabled() or is_fsdp_enabled()):
        raise ValueError(
            f"rounds={count} must be 0 under ZeRO-3 and with fsdp_cpu_ram_efficient_loading, where not every process "
            "has the weights to write texts with; start with fsdp2.yaml of examples/accelerate as it is"
        )
    # One process looks, so that all agree; no stage has ended before the one before it.
    stands = _stages_in(Path(str(args.output_dir))) if count else []
    stands, ended = broadcast_object_list([stands, [Stage(number, run).has_ended() for number in range(count + 1)]])
    if stands and not args.resume_from_checkpoint:
        raise ValueError(
            f"output_dir={args.output_dir!r} has {', '.join(stands)} of an earlier run and must have no stages where "
            "resume_from_checkpoint=False; set it to true to go on with them, name another folder, or delete them"
        )
    stages = [Stage(number, run, all_so_far) for number, all_so_far in enumerate(accumulate(ended, and_))]
    return [stage for stage in stages if not stage.ended] or stages[-1:]


def _stages_in(folder: Path) -> list[str]:
    """The names of the stages that a run has begun there."""
    return sorted(path.name for path in folder.glob("round-*") if _NAME.fullmatch(path.name) and path.is_dir())


def _read(path: Path) -> list[Pair]:
    """The rows of a file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
