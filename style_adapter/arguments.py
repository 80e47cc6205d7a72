"""How a style adapter is trained: transformers' TrainingArguments plus both sides of the game."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from .data import COLUMNS
from .losses import GAMES


@dataclass
class StyleTrainingArguments(TrainingArguments):
    """Training arguments of `StyleTrainer`: everything Trainer has, and the options of the game.

    The objective is w_ce * CE + w_adv * L_G + w_feat * MSE(phi, S*) + w_cls * CE(style head) for the adapter and
    L_D + w_d_cls * CE(style head, real) + w_r1 / 2 * R1 for the discriminator, one backward for both.

    Raises:
        ValueError: An option is out of its bounds; the message names the option, the bound and the remedy.
    """

    task: str = field(
        default="transfer",
        metadata={"help": "transfer: source -> target in a style. classification: text -> label."},
    )
    max_length: int = field(default=512, metadata={"help": "Most tokens a row may have; longer ones are refused."})
    w_ce: float = field(default=1.0, metadata={"help": "Weight of the likelihood of the target (or the label)."})
    novel_token_weight: float = field(
        default=1.0, metadata={"help": "Weight, in the likelihood, of target tokens that the source does not hold."}
    )
    w_adv: float = field(default=0.05, metadata={"help": "Weight of the generator's loss against the discriminator."})
    w_feat: float = field(default=0.1, metadata={"help": "Weight of the distance to the style's feature prototype."})
    w_cls: float = field(default=0.05, metadata={"help": "Weight of the style head's cross entropy on generated text."})
    w_d_cls: float = field(default=1.0, metadata={"help": "Weight of the style head's cross entropy on real text."})
    w_r1: float = field(default=0.0, metadata={"help": "Weight gamma of the R1 penalty on the discriminator; 0: none."})
    game: str = field(
        default="non_saturating",
        metadata={"help": "The game both sides play: minimax, non_saturating, hinge or relativistic."},
    )
    gate_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the style gates; ten times learning_rate if left out."}
    )
    discriminator_learning_rate: float = field(default=5e-4, metadata={"help": "Learning rate of the discriminator."})
    discriminator_beta1: float = field(
        default=0.5, metadata={"help": "First AdamW beta of the discriminator; low, as its target moves."}
    )
    discriminator_weight_decay: float = field(default=0.0, metadata={"help": "Weight decay of the discriminator."})
    discriminator_blocks: int = field(
        default=4, metadata={"help": "How many blocks of the frozen backbone the discriminator reads."}
    )
    discriminator_copy: bool = field(
        default=False,
        metadata={"help": "Let the discriminator read a frozen copy of the backbone: where trainable='all'."},
    )
    discriminator_width: int = field(default=256, metadata={"help": "Width of the discriminator's head."})
    discriminator_spectral_norm: bool = field(
        default=False, metadata={"help": "Bound the discriminator's layers by spectral normalisation."}
    )
    discriminator_smoothing: float | None = field(
        default=None,
        metadata={"help": "One-sided label smoothing of real texts; 0.1 if left out, 0 in the hinge game (no labels)."},
    )
    adversary_start: int = field(
        default=100, metadata={"help": "Optimizer steps of likelihood alone before the game starts."}
    )
    adversary_fraction: float = field(
        default=0.5, metadata={"help": "Share of the rows that the discriminator sees, in [0, 1]; 0: no game."}
    )
    temperature: float = field(
        default=1.0, metadata={"help": "Temperature of the straight-through softmax over the vocabulary."}
    )
    prototype_rate: float = field(default=0.1, metadata={"help": "Rate at which style prototypes follow new texts."})
    eval_samples: int = field(
        default=128, metadata={"help": "Rows of the evaluation set that are rewritten and judged at each evaluation."}
    )
    generation_batch_size: int = field(default=32, metadata={"help": "Texts generated at once in an evaluation."})
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Evaluations without a better style score before training stops; 0: never."}
    )
    expected_processes: int | None = field(
        default=None, metadata={"help": "Refuse to train with another number of processes than this."}
    )
    resume_from_checkpoint: str | bool | None = field(  # type: ignore[assignment]  # Trainer.train takes True too
        default=None, metadata={"help": "Checkpoint folder to go on from; true: the newest one in output_dir."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Left False: the model's signature does not name the style columns."}
    )
    # Two forwards of the backbone a step make DDP fail with the search for unused parameters that Trainer turns on.
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Left False: every parameter gets a gradient at every step."}
    )
    metric_for_best_model: str | None = field(
        default="style_score", metadata={"help": "Evaluation metric that picks the best checkpoint."}
    )
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether more of that metric is better."})

    def __post_init__(self) -> None:
        """Checks the options of the game, then transformers' own."""
        self._check_game()
        self._check_bounds()
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()  # Trainer refuses bf16 otherwise
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            self.ddp_backend = None  # so that a recipe for several processes runs in one: Accelerate finds no group
        super().__post_init__()
        if self.early_stopping_patience and self.eval_strategy == "no":
            raise ValueError(
                f"early_stopping_patience={self.early_stopping_patience} must come with evaluations; set eval_strategy"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: Trainer writes one into the run's folder, and may upload it, so no token."""
        return vars(self) | {"hub_token": None}

    def _check_game(self) -> None:
        """Options that choose among known ones."""
        for name, known in (("task", tuple(COLUMNS)), ("game", tuple(GAMES))):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}")
        if self.discriminator_smoothing is None:
            self.discriminator_smoothing = 0.0 if self.game == "hinge" else 0.1
        if self.game == "hinge" and self.discriminator_smoothing:
            raise ValueError(
                f"discriminator_smoothing={self.discriminator_smoothing} must be 0 in the hinge game, which has "
                "margins and no labels; set it to 0"
            )

    def _check_bounds(self) -> None:
        """Bounds of the numeric options."""
        for name in (n for n in vars(self) if n.startswith("w_")):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 0; 0 turns the term off")
        if not 0.0 <= self.adversary_fraction <= 1.0:
            raise ValueError(f"adversary_fraction={self.adversary_fraction} must be in [0, 1]; 0 turns the game off")
        if not 0.0 <= (self.discriminator_smoothing or 0.0) < 1.0:
            raise ValueError(f"discriminator_smoothing={self.discriminator_smoothing} must be in [0, 1); 0.1 is usual")
        for name in ("novel_token_weight", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be > 0; 1 changes nothing")
        for name in ("max_length", "discriminator_blocks", "discriminator_width", "eval_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 1; set it in StyleTrainingArguments")

    @property
    def plays(self) -> bool:
        """Whether there is a game at all: some rows are judged, and some term wants them."""
        return self.task == "transfer" and self.adversary_fraction > 0 and max(self.w_adv, self.w_feat, self.w_cls) > 0

    @property
    def asks_fsdp(self) -> int | None:
        """The version of FSDP that the launcher or these arguments ask for; None for none."""
        if self.fsdp_plugin_args is not None:
            return int(self.fsdp_plugin_args["fsdp_version"])
        return int(os.environ.get("FSDP_VERSION", "1")) if _set("ACCELERATE_USE_FSDP") else None

    @property
    def asks_deepspeed(self) -> bool:
        """Whether the launcher or these arguments ask for DeepSpeed."""
        return bool(self.deepspeed) or _set("ACCELERATE_USE_DEEPSPEED")


def _set(variable: str) -> bool:
    """Whether the launcher has set an option of Accelerate."""
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
