"""The model card, written by the run: what the adapter is, how to use it with and without this package, its numbers."""

import os
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
import style_adapter
from peft import {{ auto_class }}
from transformers import AutoTokenizer

model = {{ auto_class }}.from_pretrained("{{ repo }}")
tokenizer = AutoTokenizer.from_pretrained("{{ repo }}")
{{ usage }}
```

Without this package: `style-adapter export --adapter {{ repo }} --style {{ first }} OUT` writes a plain LoRA of one
style or mixture, which stock PEFT, vLLM or diffusers load.

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
    "transfer": """from style_adapter import transfer

bank = model.styles
print(transfer(model, tokenizer, ["your text"], "{first}"))
print(transfer(model, tokenizer, ["your text"], 0.7 * bank["{first}"] + 0.3 * bank["{last}"]))""",
    "classification": """from style_adapter import classify

print(classify(model, tokenizer, ["your text"]))""",
}
_AUTO_CLASS = {
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
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
        recipe: What the run was, option by option.

    Returns:
        The card as written.
    """
    config = model.peft_config[model.active_adapters[0]]
    assert isinstance(config, StyleAdapterConfig)
    task_type = str(getattr(config.task_type, "value", config.task_type))
    names, base = config.styles, config.base_model_name_or_path or "its backbone"
    usage = _USAGE["classification" if task_type == "SEQ_CLS" else "transfer"]
    card = ModelCard.from_template(
        _card_data(config),
        template_str=TEMPLATE,
        title=repo or Path(folder).name,
        repo=repo or Path(folder).name,
        base=base,
        count=f"{len(names)} style{'s' if len(names) > 1 else ''}",
        names=", ".join(names[:50]) + (", ..." if len(names) > 50 else ""),
        first=names[0],
        auto_class=_AUTO_CLASS.get(task_type, "AutoPeftModel"),
        usage=usage.format(first=names[0], last=names[-1]),
        numbers=numbers or "None measured yet: `style-adapter evaluate` prints and keeps them.",
        recipe=_option_list(recipe or {}),
    )
    card.save(Path(folder) / "README.md")
    return card


def _card_data(config: StyleAdapterConfig) -> ModelCardData:
    """The YAML head; a base that is a local path is left out, as the hub would refuse it."""
    base = config.base_model_name_or_path
    known = base is not None and not os.path.isabs(base) and not base.startswith(".")
    return ModelCardData(
        library_name="peft",
        base_model=base if known else None,
        tags=["style_adapter", "style-transfer", "peft"],
    )


def _option_list(recipe: Mapping[str, Any]) -> str:
    """One line an option."""
    lines = [f"- `{name}`: {value}" for name, value in recipe.items()]
    return "\n".join(lines) or "Not recorded."
