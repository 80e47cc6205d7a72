"""torchao: a style adapter trains on a backbone with int8 weights.

    pip install torchao
    python examples/peers/torchao_int8.py
    python examples/peers/torchao_int8.py --model HuggingFaceTB/SmolLM2-135M-Instruct

Quantise through transformers, as here: PEFT wants to know how, and refuses a model that `quantize_` alone has changed.
"""

import tempfile
from collections.abc import Sequence

import torch
from peft import get_peft_model
from tiny import STYLES, WORDS, arguments, load, rows
from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, TorchAoConfig

from style_adapter import StyleAdapterConfig


def main(argv: Sequence[str] | None = None) -> list[float]:
    args = arguments(__doc__, argv, max_steps=60)
    backbone, tokenizer = load(args.model)
    with tempfile.TemporaryDirectory() as folder:
        backbone.save_pretrained(folder)
        quantised = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=TorchAoConfig(Int8WeightOnlyConfig())
        )
    model = get_peft_model(quantised, StyleAdapterConfig(styles=STYLES, target_modules="all-linear"))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    data = rows()
    texts = [prompt + said for prompt, said in zip(data["prompt"], data["completion"], strict=True)]
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    losses = []
    for _ in range(args.max_steps):
        loss = model(**batch, labels=labels, styles=list(data["style"])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    print(f"{len(WORDS)} prompts in {len(STYLES)} styles, loss {losses[0]:.2f} -> {losses[-1]:.2f}")
    return losses


if __name__ == "__main__":
    main()
