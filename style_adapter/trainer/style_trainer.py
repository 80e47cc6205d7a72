"""The game under Accelerate: a transformers.Trainer that trains adapter and discriminator in one backward."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import EvalPrediction, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from ..adversary import StyleDiscriminator
from ..arguments import StyleTrainingArguments
from ..data import RowSeeds, check_compared, check_rows, kind_of_rows
from ..game import StepLosses
from ..tasks import TASKS, Setting, Task
from .interruption import Interruption
from .schedules import side_schedules
from .sharding import check_launch, check_rewriting, clip
from .sides import parameter_groups, sides_of
from .terminal import speak_in_lines
from .trials import check_model
from .watching import GAME_TERMS, WatchingTrainer, watching_callbacks

# Which count divides a term: items of its likelihood, judged rows (all others), tokens translated back, compared rows.
COUNTED_BY = {"ce": 0, "rec": 0, "bt": 2, "pref": 3}


class StyleTrainer(WatchingTrainer):
    """Trains a style adapter, alone or against a discriminator on the frozen backbone.

    Args:
        model: What `get_peft_model(backbone, StyleAdapterConfig(...))` gave.
        args: A `StyleTrainingArguments`.
        train_dataset: The columns that the task needs: `source`, `target`, `style` for transfer; see `data.COLUMNS`.
        eval_dataset: The same columns; its first `eval_samples` rows are rewritten and judged.
        processing_class: The backbone's tokenizer.
        judge: Tells styles apart in evaluations; a `StyleJudge` of the training targets if left out, or none where
            they are of one style. Never the training discriminator.
        discriminator: Another head than the one that `args` describes.
        compute_metrics: Further numbers at each evaluation, such as a `StyleTransferEvaluator`'s; they replace those of
            the same name. A function of transformers' `EvalPrediction`: its `predictions` are the texts or labels,
            `label_ids` the targets or labels of the rows, None without any, and `inputs`, where texts are rewritten,
            {"sources", "styles", "scorer"}, the last the frozen backbone as it reads texts.
        model_init: Gives a fresh model at each `train`, in place of `model`: for `hyperparameter_search`, whose trial
            it is given if it takes an argument. Any option of `args` can be searched, and what `model_init` draws.

    Raises:
        ValueError: Missing columns, empty data, an unknown style: before any step.
    """

    loss_is_scaled_for_ga = True  # each term is divided by its count over the whole accumulated batch
    current_gradient_accumulation_steps = 1  # Trainer's loop sets it at each step

    def __init__(  # noqa: PLR0913 - what Trainer takes, and what is ours
        self,
        model: PeftModel | None = None,
        args: StyleTrainingArguments | None = None,
        *,
        train_dataset: Any,
        processing_class: PreTrainedTokenizerBase,
        eval_dataset: Any = None,
        judge: Any = None,
        discriminator: StyleDiscriminator | None = None,
        compute_metrics: Callable[[EvalPrediction], Mapping[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        model_init: Callable[..., PeftModel] | None = None,
        **kwargs: Any,
    ) -> None:
        """Checks the data, builds the game, hands both to Trainer, and tokenises."""
        args = StyleTrainingArguments() if args is None else args
        check_rows(train_dataset, args.task)
        if eval_dataset is not None:
            check_rows(eval_dataset, args.task, name="eval_dataset")
        check_launch(args)
        check_model(model, model_init, discriminator)
        self.args, self.model_init, self.interruption = args, model_init, Interruption()
        model = self._fresh_adapter() if model is None else model
        kind = kind_of_rows(train_dataset, args.task)
        check_compared(train_dataset, kind, weight=args.w_pref)
        self.task, self.eval_task = TASKS[kind], TASKS[kind_of_rows(eval_dataset or train_dataset, args.task)]
        self.setting = Setting(model, processing_class, args, judge, RowSeeds(args.seed), train_dataset)
        self.evaluated_on = eval_dataset
        self.eval_rows = eval_dataset and self._first_rows(eval_dataset)
        self._discriminator_norm: float | None = None
        self._discriminator_rate: float | None = None
        game = self._build(model, discriminator)
        self._settle_best_metric()
        super().__init__(
            model=game,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=[*(callbacks or []), *self._watchers, *watching_callbacks(callbacks or [])],
            **kwargs,
        )
        self.model_init = model_init  # which Trainer takes in place of a model only
        check_rewriting(hides_weights=self.hides_weights, sampled=game.rules.fakes == "sampled")
        speak_in_lines(self)
        # Last, since it takes longest: whatever Trainer refuses, it has refused by now.
        self.train_dataset = self._prepared(train_dataset, self.task)
        self.eval_dataset = eval_dataset and self._prepared(eval_dataset, self.eval_task, epoch=0)
        self.data_collator = self._collator(self.train_dataset, self.eval_dataset)

    def _prepared(self, dataset: Any, task: Task, *, epoch: int | None = None) -> Any:
        """`dataset` as the collator of `task` reads it, each style parsed once so that a typo stops here.

        With an `epoch`, what is drawn for each row is what that epoch draws, so that evaluations compare.
        """
        for style in dataset["style"] if "style" in dataset.column_names else ():
            self.bank.parse(style)
        tokens = task.tokenize(dataset, self.setting)
        return tokens if epoch is None else tokens.add_column("epoch", [epoch] * len(tokens))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """sum_k w_k * (sum over rows of term k) / (count of k over the whole accumulated batch and all processes)."""
        counts = num_items_in_batch if isinstance(num_items_in_batch, Tensor) else self._counts([inputs])
        counts = counts.where(counts > 0, 1)  # no item, no term
        step = self.state.global_step
        play, teach = model.training and self.args.plays_at(step), not model.training or self.args.teaches_at(step)
        self.model.blur = self.args.instance_noise * (1 - step / max(1, self.state.max_steps))
        with self.accelerator.autocast():  # FSDP2's own way of lowering is off
            losses: StepLosses = model(play=play, teach=teach, **inputs)
        means = {term: rows.sum() / counts[COUNTED_BY.get(term, 1)] for term, rows in losses.rows.items()}
        terms = {term: self._weight(term) * mean for term, mean in means.items()}
        loss = torch.stack(list(terms.values())).sum()
        if model.training:
            self._measure(terms)
            self._record.add(means, losses.scores, steps=1 / self.current_gradient_accumulation_steps)
            loss = loss * self.accelerator.num_processes  # DDP averages the gradients
        return (loss, losses) if return_outputs else loss

    def _weight(self, term: str) -> float:
        """The weight of one term; L_D itself has weight 1, R1 and R2 the customary gamma / 2."""
        penalties = {"d_r1": self.args.w_r1 / 2, "d_r2": self.args.w_r2 / 2}
        weight = penalties.get(term, 1.0) if term in ("d_adv", *penalties) else getattr(self.args, f"w_{term}")
        return weight * self.adversary_scale if term in GAME_TERMS else weight

    def _counts(self, batches: list[dict[str, Tensor]]) -> Tensor:
        """What each kind of term is divided by, for some batches of this process: see `COUNTED_BY`."""
        return torch.stack([self._count(batch) for batch in batches]).sum(dim=0)

    def _count(self, batch: dict[str, Tensor]) -> Tensor:
        """The counts of one batch: the task's three, and the rows that compare two targets."""
        own = self.task.count(batch)
        compared = batch["preferred"].sum() if "preferred" in batch else torch.zeros_like(own[1])
        return torch.stack([*own, compared])

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor | None:
        """The counts over the accumulated batch and all processes, which every term is divided by."""
        if not batch_samples:
            return None
        return self.accelerator.reduce(self._counts(batch_samples).to(device), reduction="sum")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's line plus each term, D's accuracies, both gradient norms and both learning rates."""
        if "loss" in logs:
            accelerator = self.accelerator
            logs |= self._record.drain(
                lambda sums: accelerator.reduce(sums.to(accelerator.device, torch.float32), reduction="sum"),
                processes=accelerator.num_processes,
            )
            if self._discriminator_norm is not None:
                logs["d_grad_norm"] = self._discriminator_norm
            if self._discriminator_rate is not None:
                logs["d_learning_rate"] = self._discriminator_rate
        super().log(logs, start_time)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One optimizer, its groups: adapter, the same without decay, gates (never decayed), discriminator."""
        if self.optimizer is None:
            chosen = self.optimizer_cls_and_kwargs
            cls, kwargs = chosen or self.get_optimizer_cls_and_kwargs(self.args, None)
            self.optimizer = cls(parameter_groups(self.model, self.args, kwargs), **kwargs)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Trainer's; one factor a side where the discriminator has a schedule of its own."""
        own = self.args.discriminator_lr_scheduler_type is not None and self.model.discriminator is not None
        if self.lr_scheduler is None and own:
            moved = optimizer or self.create_optimizer()
            self.lr_scheduler = side_schedules(self.args, moved, num_training_steps)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Clips each side alone: one norm over both would let D's gradient shrink G's step, as it does in DeepSpeed."""
        if self.is_deepspeed_enabled:
            return super()._clip_grad_norm(model)
        self.accelerator.unscale_gradients()
        generator, discriminator = sides_of(self.model)
        if discriminator:
            self._discriminator_norm = float(clip(discriminator, self.args.max_grad_norm))
        return clip(generator, self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Trainer's, the adapter's or, without clipping, that of both sides; the guard looks at each."""
        norm = super()._get_grad_norm(model, grad_norm)
        self.guard.norms = {"adapter": norm, "discriminator": self._discriminator_norm}
        return norm

    def _get_learning_rate(self) -> float:
        """The adapter's rate, as Trainer asks for it after each step; D's is kept for the same log line."""
        if self.model.discriminator is not None and self.optimizer is not None:
            self._discriminator_rate = self.optimizer.param_groups[-1]["lr"]
        return super()._get_learning_rate()

    def shares(self) -> dict[str, tuple[int, float]]:
        """Trained numbers of the adapter and of the discriminator, apart, and each as a share of the backbone."""
        generator, discriminator = (sum(p.numel() for p in side) for side in sides_of(self.model))
        backbone = sum(p.numel() for p in self.style_model.parameters()) - generator
        counts = {"adapter": generator, "discriminator": discriminator}
        return {name: (count, count / backbone) for name, count in counts.items()}

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """The likelihood loss of one evaluation batch."""
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Trainer's evaluation with the style metrics; `eval_dataset` has the columns that the constructor takes."""
        if eval_dataset is None or isinstance(eval_dataset, dict):  # Trainer comes back here for each of a dict
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        check_rows(eval_dataset, self.args.task, name="eval_dataset")
        kept, self.eval_rows = self.eval_rows, self._first_rows(eval_dataset)
        try:
            return super().evaluate(
                self._prepared(eval_dataset, self.eval_task, epoch=0), ignore_keys, metric_key_prefix
            )
        finally:
            self.eval_rows = kept

    def _first_rows(self, dataset: Any) -> Any:
        """The rows that are rewritten and judged at an evaluation, with ids: each process takes some of them."""
        rows = dataset.select(range(min(self.setting.args.eval_samples, len(dataset))))
        kept = [name for name in rows.column_names if name != "row_id"]
        return rows.select_columns(kept).add_column("row_id", [*range(len(rows))])

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Trainer's loss, and the style metrics of the rewritten rows beside it."""
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        if self.eval_rows is None:
            return output
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in self.style_metrics().items()}
        return output._replace(metrics={**(output.metrics or {}), **metrics})
