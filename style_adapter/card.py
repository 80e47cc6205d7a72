"""The model card, written by the run: what the adapter is, how to use it with and without this package, its numbers."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from peft import PeftModel

from .config import StyleAdapterConfig

TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

One [style_adapter](https://pypi.org/project/style-adapter/) for {{ base }} with {{ count }}: {{ names }}. The backbone
stays frozen; a style, a mixture or a strength is chosen at inference.

## Use it

`import style_adapter` first: without it PEFT answers `KeyError: 'STYLE_ADAPTER'`.

```python
{{ usage }}
```

{{ without }}

## Numbers

{{ numbers }}

## Training

{{ recipe }}

## Limits

The adapter repeats what its training texts say and how they say it, errors and biases included. Style accuracy is
what a judge sees in words, marks and letters; read the outputs before you rely on them. A mixture or a strength above
1 leaves what training has seen.
"""

_USAGE = {
    "transfer": """import style_adapter
from peft import {auto_class}
from style_adapter import transfer
from transformers import AutoTokenizer

model = {auto_class}.from_pretrained("{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
bank = model.styles
print(transfer(model, tokenizer, ["your text"], {first!r}))
print(transfer(model, tokenizer, ["your text"], 0.7 * bank[{first!r}] + 0.3 * bank[{last!r}]))""",
    "classification": """from style_adapter import classify, load

model, tokenizer = load("{repo}")
print(classify(model, tokenizer, ["your text"]))""",
}
_WITHOUT = {
    "transfer": """Without this package: `style-adapter export --adapter {repo} --style {quoted} OUT` writes a plain
LoRA of one style or mixture, which stock PEFT, vLLM or diffusers load.""",
    "classification": "The head of the classifier is trained too, so no plain LoRA holds it: merge a style instead.",
}
_AUTO_CLASS = {
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
}


def write_card(
    model: PeftModel,
    folder: str | os.PathLike[str],
    *,
    repo: str | None = None,
    numbers: str = "",
    recipe: Mapping[str, Any] | None = None,
) -> ModelCard:
    """Writes `README.md` for the active adapter into `folder`.

    Args:
        model: The trained model.
        folder: Where the adapter was saved.
        repo: The hub id to show in the snippets; the folder's name if left out.
        numbers: Markdown with the measured table, and the command that prints it.
        recipe: What the run was, option by option; paths of this machine are left out.

    Returns:
        The card as written.
    """
    config = model.peft_config[model.active_adapters[0]]
    assert isinstance(config, StyleAdapterConfig)
    task_type = str(getattr(config.task_type, "value", config.task_type))
    names, title = config.styles, repo or Path(folder).resolve().name
    kind = "classification" if task_type == "SEQ_CLS" else "transfer"
    facts = {
        "repo": title,
        "auto_class": _AUTO_CLASS.get(task_type, "AutoPeftModel"),
        "first": names[0],
        "last": names[-1],
        "quoted": shlex.quote(names[0]),
    }
    card = ModelCard.from_template(
        ModelCardData(
            library_name="peft", base_model=_hub_base(config), tags=["style_adapter", "style-transfer", "peft"]
        ),
        template_str=TEMPLATE,
        title=title,
        base=_hub_base(config) or "its backbone",
        count=f"{len(names)} style{'s' if len(names) > 1 else ''}",
        names=", ".join(names[:50]) + (", ..." if len(names) > 50 else ""),
        usage=_USAGE[kind].format(**facts),
        without=_WITHOUT[kind].format(**facts),
        numbers=numbers or "None measured yet: `style-adapter evaluate` prints and keeps them.",
        recipe=_option_list(recipe or {}),
    )
    card.save(Path(folder) / "README.md")
    return card


def has_card(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` holds a card of `write_card`'s, and not the one that PEFT writes with each adapter."""
    path = Path(folder) / "README.md"
    return path.exists() and "import style_adapter" in path.read_text("utf-8")


def _hub_base(config: StyleAdapterConfig) -> str | None:
    """The backbone's id; None where it is a local folder: nobody else has that, and the hub would refuse the card."""
    base = config.base_model_name_or_path
    return None if base is None or _is_local(base) else base


def _is_local(value: Any) -> bool:
    """Whether an option is a path of this machine, or holds one."""
    if isinstance(value, (list, tuple)):
        return any(map(_is_local, value))
    if isinstance(value, Mapping):
        return any(map(_is_local, value.values()))
    return isinstance(value, str) and bool(value) and (value.startswith((".", "~", os.sep)) or os.path.exists(value))


def _option_list(recipe: Mapping[str, Any]) -> str:
    """One line an option."""
    lines = [f"- `{name}`: {value}" for name, value in recipe.items() if not _is_local(value)]
    return "\n".join(lines) or "Not recorded."
