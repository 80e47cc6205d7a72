"""accelerate: a backbone that does not fit, with blocks on the disk, and a trained adapter on it.

    python examples/peers/offloaded.py
    python examples/peers/offloaded.py --model HuggingFaceTB/SmolLM2-135M-Instruct

PEFT needs the map again, under its own names: left out, it makes one of its own and may move everything back.
Name the backbone by its hub id or by an absolute path. PEFT 0.21 writes the parts on the disk anew, with the adapter in
them, below the working directory; of a backbone named by a relative path it overwrites the checkpoint itself.
"""

import os
import tempfile
from collections.abc import Sequence

from peft import PeftModel, get_peft_model
from tiny import STYLES, answers, arguments, load
from transformers import AutoModelForCausalLM

from style_adapter import StyleAdapterConfig


def main(argv: Sequence[str] | None = None) -> dict[str, list[str]]:
    args = arguments(__doc__, argv)
    backbone, tokenizer = load(args.model)
    config = StyleAdapterConfig(styles=STYLES, target_modules="all-linear", init_weights=False, task_type="CAUSAL_LM")
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        backbone.save_pretrained(f"{folder}/backbone")
        whole = get_peft_model(backbone, config)  # random weights stand for a trained adapter
        whole.save_pretrained(f"{folder}/adapter")
        os.chdir(folder)  # for what PEFT writes below the working directory
        try:
            adapted = load_offloaded(folder, device_map(backbone.config.num_hidden_layers))
            mixed = [STYLES[i % 2] for i in range(4)]
            said = {"whole": answers(whole, tokenizer, mixed), "offloaded": answers(adapted, tokenizer, mixed)}
        finally:
            os.chdir(here)
    print(said)
    return said


def load_offloaded(folder: str, places: dict[str, str]) -> PeftModel:
    """The adapter on the backbone, each module where `places` says."""
    backbone = AutoModelForCausalLM.from_pretrained(
        f"{folder}/backbone", device_map=places, offload_folder=f"{folder}/parts"
    )
    inside_peft = {f"base_model.model.{name}": place for name, place in places.items()}
    return PeftModel.from_pretrained(
        backbone, f"{folder}/adapter", device_map=inside_peft, offload_folder=f"{folder}/adapted parts"
    )


def device_map(blocks: int) -> dict[str, str]:
    """The second half of a Llama's blocks on the disk, all else on the CPU."""
    placed = {f"model.layers.{i}": "cpu" if i < blocks // 2 else "disk" for i in range(blocks)}
    return {**dict.fromkeys(["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"], "cpu"), **placed}


if __name__ == "__main__":
    main()
