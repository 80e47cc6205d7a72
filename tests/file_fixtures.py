"""A saved adapter whose output depends on the style, and rows to rewrite."""

import json
from pathlib import Path
from typing import Any

from training_fixtures import adapted, byte_tokenizer, randomised, save_backbone

TEXTS = ["ab", "", "cde", "fg hi", None, "éa", "日b", "  ", "ja je", "hi", "kl mn op"]
STYLES = [
    "loud",
    "calm",
    "0.5*loud + 0.5*calm",
    "",
    "{loud: 1, calm: -0.5}",
    "calm",
    "loud",
    "calm",
    "loud",
    "",
    "calm",
]


def save_adapter(folder: Path, *, seed: int = 0) -> str:
    """A random adapter, another one by another seed, on its backbone; the folder of the adapter."""
    save_backbone(folder)
    model = randomised(adapted(seed=seed))
    if seed:
        for name, parameter in model.named_parameters():
            if "style_adapter_" in name:
                parameter.data.neg_()
    model.peft_config["default"].base_model_name_or_path = str(folder / "base")
    model.save_pretrained(folder / "adapter")
    byte_tokenizer().save_pretrained(folder / "adapter")
    return str(folder / "adapter")


def rows(count: int = len(TEXTS)) -> list[dict[str, Any]]:
    """Rows with a number, a text and a style each."""
    return [{"id": i, "text": TEXTS[i % len(TEXTS)], "style": STYLES[i % len(STYLES)]} for i in range(count)]


def save_jsonl(path: Path, count: int = len(TEXTS)) -> str:
    """Those rows as a file."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(count)), "utf-8")
    return str(path)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def visible(folder: Path) -> list[str]:
    """The names of the files that a reader of the folder sees."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
