"""The model card, written by the run: what the adapter is, how to use it with and without this package, its numbers."""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from peft import PeftModel

from ..config import TASK_OF_HEAD, StyleAdapterConfig
from .found import pictures_in, results_of

TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

One [style_adapter](https://pypi.org/project/style-adapter/) for {{ base }} with {{ count }}: {{ names }}. The backbone
stays frozen; a style, a mixture or a strength is chosen at inference.

## Use it

`import style_adapter` first: without it PEFT answers `KeyError: 'STYLE_ADAPTER'`, which means that it has not been told
of this method, not that a file is broken.

```python
{{ usage }}
```

{{ without }}

{{ pictures }}{{ measured }}
"""
MEASURED = """## Numbers

{numbers}

## Data

{data}

## Training

{recipe}

## Limits and risks

The adapter repeats what its training texts say and how they say it, errors and biases included. Style accuracy is
what a judge sees in words, marks and letters; read the outputs before you rely on them. A mixture or a strength above
1 leaves what training has seen. A rewrite may change what a text says: do not pass it off as its author's words, and do
not use a style to imitate a person without leave.
"""

_USAGE = {
    "transfer": """from style_adapter import load, transfer

model, tokenizer = load({repo}{where})
bank = model.styles
print(transfer(model, tokenizer, ["your text"], {first}))
print(transfer(model, tokenizer, ["your text"], 0.7 * bank[{first}] + 0.3 * bank[{last}]))""",
    "classification": """from style_adapter import classify, load

model, tokenizer = load({repo}{where})
print(classify(model, tokenizer, ["your text"]))""",
    "token_classification": """from style_adapter import load, tag

model, tokenizer = load({repo}{where})
print(tag(model, tokenizer, ["your words"], {first}))""",
    "masked_lm": """from style_adapter import load

model, tokenizer = load({repo}{where})
inputs = tokenizer("your " + tokenizer.mask_token, return_tensors="pt")
print(tokenizer.decode(model(**inputs, styles={first}).logits.argmax(-1)[0]))""",
    "generation": """from style_adapter import load, write

model, tokenizer = load({repo}{where})
print(write(model, tokenizer, ["your prompt, or nothing"], {first}, samples=3))""",
}
_EXPORT = """`style-adapter export --adapter {repo_word} --style {first_word} OUT` writes one style, or a mixture, as a
plain LoRA that stock PEFT, vLLM or diffusers load without this package."""
_LORA = """Without this package, {which} is a plain LoRA of its own for stock PEFT, vLLM or diffusers:

```python
from peft import PeftModel
from transformers import {auto_class}

backbone = {auto_class}.from_pretrained({base})
model = PeftModel.from_pretrained(backbone, {repo}, subfolder={folder})
```"""
_LOST = """Without this package there is no way in: the adapter has trained {lost} too, which a plain LoRA of one style
would lose. Merge one instead, inside `with model.styled({first})`: `model.merge_and_unload()` leaves a plain model."""
_AUTO_CLASS = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "MASKED_LM": "AutoModelForMaskedLM",
}
_PIPELINE_TAG = {
    "CAUSAL_LM": "text-generation",
    "SEQ_2_SEQ_LM": "text-generation",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "MASKED_LM": "fill-mask",
}
_SHOWN = 50  # styles, and options of them, that a card lists by name


def write_card(
    model: PeftModel,
    folder: str | os.PathLike[str],
    *,
    repo: str | None = None,
    numbers: str = "",
    recipe: Mapping[str, Any] | None = None,
    data: str = "",
    lora: Mapping[str, str] | None = None,
    base_model_id: str | None = None,
) -> ModelCard:
    """Writes `README.md` for the active adapter into `folder`.

    Where neither numbers nor recipe is given and a card of this function's is there already, its title stays unless
    `repo` is another, and so does all that follows `## Numbers`: what the run measured, and what was added by hand.
    Pictures that stand in the folder are shown. The numbers of a `metrics.json` there, as `Evaluation.save` and
    `style-adapter evaluate --output` leave it, become the card's `model-index`, of the adapter and of the copied input,
    by direction.

    Args:
        model: The trained model.
        folder: Where the adapter was saved.
        repo: The hub id to show in the snippets; the folder's name if left out.
        numbers: Markdown with the measured table, and the command that prints it.
        recipe: What the run was, option by option; paths of this machine and tokens are left out.
        data: Markdown about the training rows.
        lora: Where the plain LoRA of each style stands beside the adapter, such as `{"kjv": "lora/kjv"}`.
        base_model_id: The backbone's hub id; the recorded one if left out, and none where that is a local folder.

    Returns:
        The card as written.
    """
    config = model.peft_config[model.active_adapters[0]]
    assert isinstance(config, StyleAdapterConfig)
    path, names = Path(folder) / "README.md", config.styles
    kept = path.read_text("utf-8") if has_card(folder) and not numbers and recipe is None else ""
    title = repo or (_TITLE.findall(kept) or [Path(folder).resolve().name])[0]
    measured = (
        kept[kept.index(_FIRST_MEASURED) :] if _FIRST_MEASURED in kept else _measured(numbers, recipe or {}, data)
    )
    head, task = _head_of(model), (_TASK.findall(measured) or [""])[0]
    results = results_of(Path(folder) / "metrics.json")
    base = base_model_id or hub_base(config.base_model_name_or_path)
    card = ModelCard.from_template(
        ModelCardData(
            library_name="peft",
            base_model=base,
            tags=["style_adapter", "style-transfer", "peft"],
            pipeline_tag=_PIPELINE_TAG.get(head),
            model_name=title if results else None,
            eval_results=results or None,
        ),
        template_str=TEMPLATE,
        title=title,
        base=base or "its backbone",
        count=f"{len(names)} style{'s' if len(names) > 1 else ''}",
        names=", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else ""),
        pictures=pictures_in(Path(folder)),
        measured=measured.strip(),
        **_ways_in(config, title, base, lora or {}, head=head, task=task),
    )
    card.save(path)
    return card


def has_card(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` holds a card of `write_card`'s, and not the one that PEFT writes with an adapter."""
    path = Path(folder) / "README.md"
    return path.exists() and "import style_adapter" in path.read_text("utf-8")


def hub_base(base: str | None) -> str | None:
    """The backbone's id; None where it is a local folder: nobody else has that, and the hub would refuse the card."""
    if base is None or _is_local(base):
        return None
    try:
        validate_repo_id(base)
    except HFValidationError:
        return None
    return base


def beyond_lora(config: StyleAdapterConfig) -> list[str]:
    """What the adapter has trained that a plain LoRA of one style would lose; empty where it can be exported."""
    backbone = ["the backbone"] if config.trainable == "all" else []
    biases = [] if config.bias == "none" else ["biases"]
    return [*backbone, *biases, *(f"`{name}`" for name in config.modules_to_save or ())]


def _head_of(model: PeftModel) -> str:
    """PEFT's task type, or MASKED_LM, for which PEFT has none."""
    task_type = model.peft_config[model.active_adapters[0]].task_type
    masked = task_type is None and type(model.get_base_model()).__name__.endswith("ForMaskedLM")
    return "MASKED_LM" if masked else str(getattr(task_type, "value", task_type))


def _ways_in(
    config: StyleAdapterConfig, repo: str, base: str | None, lora: Mapping[str, str], *, head: str, task: str
) -> dict[str, str]:
    """The two snippets: with this package, and without; the first is of the head's task, or of the run's."""
    kind = TASK_OF_HEAD.get(head, task if task == "generation" else "transfer")
    names = config.styles
    strings = {"repo": repo, "first": names[0], "last": names[-1], "base": base or _UNNAMED}
    facts = {name: json.dumps(text, ensure_ascii=False) for name, text in strings.items()}  # as Python writes them too
    facts |= {f"{name}_word": shlex.quote(text) for name, text in strings.items()}
    usage = _USAGE[kind].format(**facts, where="" if base else f", base={facts['base']}")
    if beyond_lora(config):
        without = _LOST.format(**facts, lost=" and ".join(beyond_lora(config)))
    elif lora:
        facts |= {"which": _which(lora, names), "folder": json.dumps(next(iter(lora.values())), ensure_ascii=False)}
        without = _LORA.format(**facts, auto_class=_AUTO_CLASS.get(head, "AutoModel"))
        without += f"\n\n{_EXPORT.format(**facts)}"
    else:
        without = _EXPORT.format(**facts)
    return {"usage": usage, "without": without}


_UNNAMED = "the backbone that it was trained on"


def _which(lora: Mapping[str, str], names: Sequence[str]) -> str:
    """Which styles have a LoRA, and where."""
    folders = [f"`{folder}`" for folder in lora.values()]
    listed = ", ".join(folders[:_SHOWN]) + (", ..." if len(folders) > _SHOWN else "")
    return f"{'each style' if len(lora) == len(names) else 'some styles'} ({listed})"


_TASK = re.compile(r"^- `task`: (\w+)$", re.MULTILINE)  # as `_option_list` writes it
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_FIRST_MEASURED = "## Numbers\n"


def _measured(numbers: str, recipe: Mapping[str, Any], data: str) -> str:
    """The part that only the run knows."""
    return MEASURED.format(
        numbers=numbers or "None measured yet: `style-adapter evaluate` prints and keeps them.",
        recipe=_option_list(recipe),
        data=data or "Not recorded.",
    )


def _is_local(value: Any) -> bool:
    """Whether an option is a path of this machine, or holds one."""
    if isinstance(value, (list, tuple)):
        return any(map(_is_local, value))
    if isinstance(value, Mapping):
        return any(map(_is_local, value.values()))
    return isinstance(value, str) and bool(value) and (value.startswith((".", "~", os.sep)) or os.path.exists(value))


def _option_list(recipe: Mapping[str, Any]) -> str:
    """One line an option."""
    shown = {n: v for n, v in recipe.items() if not _is_local(v) and not n.endswith("token")}  # hub_token is a secret
    lines = [f"- `{name}`: {value}" for name, value in shown.items()]
    return "\n".join(lines) or "Not recorded."
