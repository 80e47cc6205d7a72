"""Two piles of text that differ by their words, and a short run on them."""

import gzip
from pathlib import Path
from typing import Any

from training_fixtures import save_backbone

WORDS = [f"{a}{b} {b}{c}" for a in "abc" for b in "defg" for c in "hij"]  # 36 texts


def write(path: Path, lines: list[str]) -> str:
    """The lines as a file, gzipped where it is named so; its name."""
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def save_piles(folder: Path) -> None:
    """A backbone and two piles, into `folder`."""
    save_backbone(folder)
    write(folder / "loud.txt", [f"{text} so {loud} !" for text in WORDS for loud in ("GREAT", "MAD")][::2])
    write(folder / "calm.txt", [f"{text} so {calm} ." for text in WORDS for calm in ("good", "fine")][::2])


def options(folder: Path, **more: Any) -> dict[str, Any]:
    """A short run on the CPU."""
    given = {"unpaired": [str(folder / "loud.txt"), str(folder / "calm.txt")], "output_dir": str(folder / "out")}
    given |= {"model_name_or_path": str(folder / "base"), "dtype": "float32", "bf16": False, "use_cpu": True}
    given |= {"report_to": "none", "max_steps": 2, "save_strategy": "no", "disable_tqdm": True, "eval_steps": 2}
    given |= {"dataloader_pin_memory": False, "discriminator_blocks": 1, "adversary_start": 1, "sampling_length": 4}
    return given | {"eval_samples": 2, "logging_steps": 1, "watch_steps": 0, "discriminator_width": 16} | more
