# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # LoRAs become the styles of one adapter
#
# You have LoRAs already: two of them become the styles of one adapter, are mixed, and leave as a LoRA again.
#
#     python examples/from_loras.py         # seconds; a tiny Llama with random weights, nothing is fetched
#
# One LoRA learns to count up, the other to count down, each trained alone with PEFT. In the adapter made of them each
# style counts its own way, rows of one batch go both ways, and any mixture is the exact sum of the two.

# %%
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from style_adapter import export_lora, from_loras

NUMBERS, LENGTH = 16, 8


# %%
def backbone() -> LlamaForCausalLM:
    """The frozen model that both LoRAs are of: the same random weights each time."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": NUMBERS}
    return LlamaForCausalLM(LlamaConfig(num_attention_heads=2, num_key_value_heads=1, **sizes))


def counting(step: int, rows: int) -> Tensor:
    """Rows of numbers that go up or down by one, round the clock of 16."""
    return (torch.randint(NUMBERS, (rows, 1)) + step * torch.arange(LENGTH)) % NUMBERS


# %% [markdown]
# ## Two LoRAs
#
# Each is trained by PEFT alone, with a rank of its own.


# %%
def train_lora(folder: Path, step: int, rank: int, steps: int) -> None:
    """A LoRA of PEFT that counts by `step`, in `folder`."""
    model = get_peft_model(backbone(), LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        ids = counting(step, rows=32)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


@torch.no_grad()
def right(model: PeftModel, step: int, **styles: object) -> float:
    """The share of next numbers that count by `step`."""
    ids = counting(step, rows=64)
    found = model(input_ids=ids, **styles).logits[:, :-1].argmax(-1)
    return float((found == ids[:, 1:]).float().mean())


# %% [markdown]
# ## One adapter of both
#
# A style a row, a mixture, and a LoRA of the mixture.


# %%
def main(folder: Path, steps: int = 150) -> dict[str, float]:
    train_lora(folder / "up", 1, rank=8, steps=steps)
    train_lora(folder / "down", -1, rank=4, steps=steps)

    model = from_loras(backbone(), {"up": folder / "up", "down": folder / "down"}).eval()
    model.save_pretrained(folder / "both")
    found = {f"{style} in style {style}": right(model, step, styles=style) for style, step in (("up", 1), ("down", -1))}
    found["up in style down"] = right(model, 1, styles="down")

    ids = counting(1, rows=2)  # one batch: the first row goes on upwards, the second downwards
    both = model(input_ids=ids[:, :1], styles=["up", "down"]).logits[:, -1].argmax(-1)
    print(f"after {ids[:, 0].tolist()} in the styles [up, down] comes {both.tolist()}")

    mixture = 0.7 * model.styles["up"] + 0.3 * model.styles["down"]
    export_lora(model, folder / "mixture", style=mixture)
    plain = PeftModel.from_pretrained(backbone(), folder / "mixture").eval()  # stock PEFT, as anybody would load it
    with torch.no_grad():
        off = plain(input_ids=ids).logits - model(input_ids=ids, styles=mixture).logits
    found["largest difference of the exported mixture"] = float(off.abs().max())
    for name, value in found.items():
        print(f"{name:45}{value:10.2g}")
    return found


# %%
if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
