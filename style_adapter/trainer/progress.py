"""What Trainer forgets of a run when it takes it up again."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields

from ..arguments import StyleTrainingArguments

PROGRESS_FILE = "progress.json"
# Where a run writes, and from where it goes on, does not make it another run.
_ELSEWHERE = {"output_dir", "resume_from_checkpoint", "run_name", "project", "hub_token", "local_rank"}


@dataclass
class Progress:
    """How far a run has come, beside what trainer_state.json holds."""

    total_loss: float = 0.0
    """Sum of the mean losses of all steps, of which `train_loss` is the mean."""
    seconds: float = 0.0
    """Time it has taken, over all sessions."""
    skipped_steps: int = 0
    """Steps that were dropped since their gradients were not finite."""
    skipped_in_a_row: int = 0
    """How many of them came last."""
    stopped: bool = False
    """Whether the run has ended before its last step, as early stopping ends it."""
    options: str = ""
    """Digest of the options it ran with."""

    def save(self, folder: str) -> None:
        """Writes it into a checkpoint."""
        with open(os.path.join(folder, PROGRESS_FILE), "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2)

    @classmethod
    def load(cls, folder: str) -> "Progress | None":
        """What `save` wrote; None where another tool wrote the checkpoint."""
        path = os.path.join(folder, PROGRESS_FILE)
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in found.items() if name in known})


def digest_of(args: StyleTrainingArguments) -> str:
    """One word for all options that make a run what it is, the same on every process."""
    options = {f.name: getattr(args, f.name) for f in fields(args) if f.init and f.name not in _ELSEWHERE}
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()
