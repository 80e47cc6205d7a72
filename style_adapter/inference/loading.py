"""From a saved folder, or the hub, back to a model that runs."""

from typing import Any

from peft import PeftConfig, PeftModel, load_peft_weights
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .._peft import PREFIX
from .batches import pad_id

AUTO_MODELS: dict[str, Any] = {
    "CAUSAL_LM": AutoModelForCausalLM,
    "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM,
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "MASKED_LM": AutoModelForMaskedLM,  # not a task type of PEFT's
}
_HEADS = ("score.weight", "classifier.weight", "out_proj.weight")  # what ends transformers' classifiers


def load(adapter: str, *, base: str | None = None, dtype: str = "auto") -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """A saved adapter on its backbone, ready to run, and its tokenizer.

    Args:
        adapter: Folder or hub id; the tokenizer beside the adapter is taken, the backbone's where there is none.
        base: Folder or hub id of the backbone; the one recorded in the adapter if left out.
        dtype: Precision of the frozen weights.

    Raises:
        ValueError: The adapter records no backbone and none is given.
    """
    config = PeftConfig.from_pretrained(adapter)
    name = base or config.base_model_name_or_path
    if not name:
        raise ValueError(f"adapter {adapter!r} records no backbone; name it with base=... (--base)")
    backbone = load_backbone(name, task_type=_head_of(config), dtype=dtype, num_labels=_classes_of(adapter))
    try:
        tokenizer = AutoTokenizer.from_pretrained(adapter)
    except (OSError, ValueError):
        tokenizer = AutoTokenizer.from_pretrained(name)
    ensure_padding(backbone, tokenizer)
    return PeftModel.from_pretrained(backbone, adapter).eval(), tokenizer


def _head_of(config: PeftConfig) -> str | None:
    """The head that the adapter was trained with: PEFT's task type or, where it has none, by the backbone's class.

    PEFT records the class of a backbone without a task type, and has no task type for masked language models.
    """
    masked = (config.auto_mapping or {}).get("base_model_class", "").endswith("ForMaskedLM")
    return config.task_type or ("MASKED_LM" if masked else None)


def _classes_of(adapter: str) -> int | None:
    """How many classes the head saved with `adapter` tells apart: the backbone's own config need not know."""
    heads = [t for n, t in load_peft_weights(adapter, device="cpu").items() if n.endswith(_HEADS) and PREFIX not in n]
    return heads[0].shape[0] if heads else None


def ensure_padding(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """The padding token in the config too, where classifiers of whole texts look for it."""
    if backbone.config.pad_token_id is None:
        backbone.config.pad_token_id = pad_id(tokenizer)


def load_backbone(
    name: str,
    *,
    task_type: str | None = None,
    dtype: str = "auto",
    load_in_4bit: bool = False,
    num_labels: int | None = None,
) -> PreTrainedModel:
    """The backbone `name` with the head that `task_type` needs; a causal or an encoder-decoder LM where it is None.

    Args:
        name: Folder or hub id.
        task_type: PEFT's, or "MASKED_LM", for which PEFT has none: leave the adapter's own task type out then.
        dtype: Precision of the weights.
        load_in_4bit: By bitsandbytes, as nf4.
        num_labels: Classes of the head; what its config says if left out.
    """
    options: dict[str, Any] = {"dtype": dtype}
    if load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    if num_labels is not None:
        options |= {"num_labels": num_labels, "ignore_mismatched_sizes": True}  # another head is made anew
    if task_type is None:
        seq2seq = AutoConfig.from_pretrained(name).is_encoder_decoder
        task_type = "SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM"
    return AUTO_MODELS[str(getattr(task_type, "value", task_type))].from_pretrained(name, **options)
