"""What a run leaves behind and takes up again: checkpoints, the best of them, the card, the push to the hub."""

import os
from functools import partial
from typing import Any

import torch
from accelerate.utils import DistributedType, save_fsdp_optimizer
from huggingface_hub import HfApi
from peft import PeftModel
from torch import Tensor, nn
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from ..arguments import StyleTrainingArguments
from ..card import write_card
from ..game import StyleGame
from ..hub import push_to_hub
from ..tasks import Setting
from .files import load_judge, load_sides, save_sides
from .manifest import discard, flaw_of, rotate, write_manifest
from .resuming import ResumingTrainer
from .sharding import check_push, hides_weights, set_up_sharding


class SavingTrainer(ResumingTrainer):
    """Both sides of the game in Trainer's files, in the same format however the weights are sharded; whole or not."""

    args: StyleTrainingArguments
    model: StyleGame
    setting: Setting
    style_model: PeftModel
    hides_weights = False  # ZeRO-3; noted once, as any later TrainingArguments reset Accelerate's state

    def create_accelerator_and_postprocess(self) -> None:
        """Trainer's, and what sharding needs."""
        super().create_accelerator_and_postprocess()
        set_up_sharding(self.accelerator, self.args)
        self.is_fsdp_enabled = self.accelerator.distributed_type == DistributedType.FSDP
        self.hides_weights = hides_weights(self.accelerator)

    def save_model(self, output_dir: str | os.PathLike[str] | None = None, _internal_call: bool = False) -> None:
        """Both sides, the tokenizer and the arguments; every process must call it, and one writes."""
        self._save(None if output_dir is None else os.fspath(output_dir))
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """What `save_model` writes."""
        folder = output_dir or str(self.args.output_dir)
        state = self.accelerator.get_state_dict(self.model_wrapped) if self.hides_weights else None
        save_sides(self.model, folder, write=self.args.should_save, state=state)
        if self.args.should_save:  # two processes must not write one file
            self.setting.tokenizer.save_pretrained(folder)
            torch.save(self.args, os.path.join(folder, "training_args.bin"))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Everything that a run goes on from; then what vouches for it; then the older ones go."""
        run = self._get_output_dir(trial)
        folder = os.path.join(run, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if self.args.should_save:
            discard(folder)  # a manifest from an earlier run would vouch for half of what is written now
        self.accelerator.wait_for_everyone()
        if trial is None:
            self.store_flos()
        self.save_model(folder, _internal_call=True)
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(folder)
            self._save_scaler(folder)
            self._save_rng_state(folder)
        self._save_state(folder, run)
        self.accelerator.wait_for_everyone()  # every process has written its files
        if self.args.should_save:
            write_manifest(folder)
        if self.args.push_to_hub:
            self._push_from_checkpoint(folder)
        self._rotate(run, folder)

    def _rotate(self, run: str, *newest: str) -> None:
        """Lets the older ones go; the best stays."""
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            rotate(run, limit=self.args.save_total_limit, keep={*newest, *([best] if best else [])})

    def _finalize_training(self, trial: Any, num_train_samples: int | float, start_time: float) -> TrainOutput:
        """Trainer's; a kill may have come between the last manifest and what goes after it."""
        if self.resumed:
            self._rotate(self._get_output_dir(trial))
        return super()._finalize_training(trial, num_train_samples, start_time)

    def _save_state(self, folder: str, run: str) -> None:
        """Trainer's state, with the best checkpoint and the callbacks as they are now, and what Trainer leaves out."""
        step = self.state.best_global_step
        best = os.path.join(run, f"{PREFIX_CHECKPOINT_DIR}-{step}")
        if step and (best == folder or flaw_of(best, checksums=False) is None):
            self.state.best_model_checkpoint = best
        callbacks = [*self.callback_handler.callbacks, self.control]
        exportable = [callback for callback in callbacks if isinstance(callback, ExportableState)]
        fresh = TrainerState(stateful_callbacks=exportable)  # type: ignore[arg-type]  # control is one in this sense
        self.state.stateful_callbacks = fresh.stateful_callbacks
        if self.args.should_save:
            self.state.save_to_json(os.path.join(folder, TRAINER_STATE_NAME))
            self.progress().save(folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Trainer's files; under FSDP without the frozen backbone, which Trainer would add to each checkpoint."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save and self.lr_scheduler is not None:
            torch.save(self.lr_scheduler.state_dict(), os.path.join(output_dir, SCHEDULER_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Both sides as they were."""
        load_sides(self.model, resume_from_checkpoint)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """Trainer's; what DeepSpeed's own checkpoint does not hold is read beside it."""
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if resume_from_checkpoint is not None and self.is_deepspeed_enabled:
            load_judge(self.model, resume_from_checkpoint)
        return prepared

    def _load_best_model(self) -> None:
        """The checkpoint with the best style score, both sides of it."""
        load_sides(self.model, str(self.state.best_model_checkpoint))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """This package's card where Trainer would write its own; what a run has measured there stays."""
        if self.is_world_process_zero():
            write_card(self.style_model, str(self.args.output_dir), repo=self.hub_model_id or self.args.hub_model_id)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Saves, then `style_adapter.push_to_hub` of the run's folder, which takes `kwargs` too; or a future of it."""
        check_push(sharded=self.is_fsdp_enabled or self.hides_weights)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token, revision = token or self.args.hub_token, revision or self.args.hub_revision
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        kwargs |= {"token": token, "revision": revision, "commit_message": commit_message}
        push = partial(push_to_hub, self.style_model, str(self.hub_model_id), folder=self.args.output_dir, **kwargs)
        return push() if blocking else HfApi().run_as_future(push)
