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
# # A tour: one adapter, many styles
#
# Modern English and King James English on a frozen SmolLM2-135M. Runs as a script (`python examples/tour.py`) and as a
# notebook; `STEPS` trains longer or shorter (300 steps are some five minutes on two cores, and a first idea of both
# styles; `make quickstart` is the whole run with its tables).

# %%
import os
import tempfile

import torch
from kjv_data import load_verse_pairs, transfer_dataset
from peft import PeftModel, get_peft_model
from smollm2 import load_smollm2

from style_adapter import (
    StyleAdapterConfig,
    StyleTrainer,
    StyleTrainingArguments,
    blend,
    export_lora,
    pipeline,
)

STEPS = int(os.environ.get("STEPS", "300"))
folder = tempfile.mkdtemp()

# %% [markdown]
# ## Adapt
#
# Two styles, one low-rank update. Both directions are trained together: each row names the style of its target.

# %%
backbone, tokenizer = load_smollm2(dtype=torch.bfloat16)
prompt = "<|im_start|>user\nRewrite: {source}<|im_end|>\n<|im_start|>assistant\n"
config = StyleAdapterConfig(
    styles=["modern", "kjv"], r=16, alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", prompt=prompt
)
model = get_peft_model(backbone, config)
rows = transfer_dataset(load_verse_pairs()["train"])
print(rows[0])

# %%
trainer = StyleTrainer(
    model=model,
    args=StyleTrainingArguments(
        folder,
        max_steps=STEPS,
        per_device_train_batch_size=8,
        learning_rate=1.5e-3,
        warmup_steps=20,
        novel_token_weight=2.0,
        adversary_start=STEPS // 2,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    ),
    train_dataset=rows,
    processing_class=tokenizer,
)
trainer.train()

# %% [markdown]
# ## Ask
#
# A style a row, mixtures in words, strengths, candidates.

# %%
pipe = pipeline(model, tokenizer)
texts = ["You have nothing to fear.", "He went to the house because he was hungry."]
for style in ("kjv", "modern", "0.5*kjv + 0.5*modern", "blend(3*kjv, modern)", "off"):
    print(f"{style:>22}: {pipe(texts, style)}")

# %%
for strength in (0.0, 0.5, 1.0, 1.5):
    print(f"{strength:>22}: {pipe(texts, 'kjv', strength=strength)}")

# %%
for choice in pipe.candidates(texts[:1], "kjv", n=4, drawn=8)[0]:
    print(f"{choice.score:8.2f}  {choice.text}")

# %% [markdown]
# Styles are values: what is written in words is plain arithmetic.

# %%
bank = model.styles
assert bank.parse("blend(3*kjv, modern)") == blend(3 * bank["kjv"], bank["modern"])
print(bank.parse("1.2*kjv - 0.2*modern"))

# %% [markdown]
# ## Leave
#
# One style, or one mixture, as a plain LoRA for stock PEFT, vLLM or diffusers.

# %%
export_lora(model, f"{folder}/lora", style="kjv")
plain = PeftModel.from_pretrained(load_smollm2(dtype=torch.bfloat16)[0], f"{folder}/lora").eval()
inputs = tokenizer(prompt.replace("{source}", texts[0]), return_tensors="pt")
written = plain.generate(**inputs, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.pad_token_id)
print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
