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
# # Two piles of text, and no pairs
#
# What `style-adapter train --unpaired a.txt b.txt` does, part by part: a teacher makes pairs from two piles that have
# nothing to do with one another, the adapter learns from them against a discriminator, and of several drafts the best
# is kept. `STEPS` trains longer or shorter; 300 steps are some ten minutes on two cores.

# %%
import os
import tempfile

import torch
from datasets import Dataset
from kjv_data import load_verse_pairs
from peft import get_peft_model
from smollm2 import load_smollm2

from style_adapter import (
    EditTeacher,
    StyleAdapterConfig,
    StyleJudge,
    StyleTrainer,
    StyleTrainingArguments,
    StyleTransferEvaluator,
    teacher_pairs,
    transfer_best,
)

STEPS = int(os.environ.get("STEPS", "300"))
folder = tempfile.mkdtemp()

# %% [markdown]
# ## Two piles
#
# Modern verses, and the King James wording of other ones: no verse is in both. A third of the verses stays aside for a
# judge that shares nothing with training.

# %%
verses = load_verse_pairs()
modern = [pair.modern for pair in verses["train"][::3]]
kjv = [pair.kjv for pair in verses["train"][1::3]]
texts, styles = modern + kjv, ["modern"] * len(modern) + ["kjv"] * len(kjv)
print(f"{len(modern):,} modern texts, {len(kjv):,} of King James; first: {texts[0]!r}")

# %% [markdown]
# ## A teacher
#
# Without a network: it looks for the few edits that put what one pile says where the other says something else. That
# suits styles that differ by their words; of King James English it finds the small ones.

# %%
teacher = EditTeacher.fit(texts, styles)
asked = [pair.modern for pair in verses["dev"][:4]]
for text, found in zip(asked, teacher.rewrite(asked, ["kjv"] * len(asked)), strict=True):
    print(f"{text}\n    {found.text if found else None}")

# %%
rows = teacher_pairs(texts, styles, count=max(100, 8 * STEPS), seed=0)
print(f"{len(rows):,} pairs; {rows[0]}")

# %% [markdown]
# ## Adapt
#
# Where a program made the target (`synthetic`), the discriminator is shown what people wrote instead.

# %%
backbone, tokenizer = load_smollm2(dtype=torch.bfloat16)
config = StyleAdapterConfig(
    styles=["modern", "kjv"], r=16, alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", prompt="{source}\n"
)
model = get_peft_model(backbone, config)
arguments = StyleTrainingArguments(
    folder,
    max_steps=STEPS,
    per_device_train_batch_size=8,
    learning_rate=1e-3,
    warmup_steps=20,
    novel_token_weight=2.0,
    w_adv=0.5,
    adversary_start=STEPS // 3,
    bf16=True,
    use_cpu=not torch.cuda.is_available(),
    train_sampling_strategy="group_by_length",
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
)
pairs = Dataset.from_list(rows)
trainer = StyleTrainer(model=model, args=arguments, train_dataset=pairs, processing_class=tokenizer)
trainer.train()

# %% [markdown]
# ## Look
#
# A judge that shares nothing with training, on verses that nobody has seen; the copied input stands beside.

# %%
test = verses["dev"][:20]
sources, wanted = [pair.modern for pair in test], ["kjv"] * len(test)
aside = verses["train"][2::3]
judge = StyleJudge.fit([text for pair in aside for text in (pair.modern, pair.kjv)], ["modern", "kjv"] * len(aside))
evaluator = StyleTransferEvaluator({"tf-idf": judge})
drafts = transfer_best(model, tokenizer, sources, wanted, score=teacher.score, samples=4)
references = [[pair.kjv] for pair in test]
print(evaluator.score({"copy": sources, "best of 4": drafts}, sources, wanted, references=references).report())
for source, draft in zip(sources[:5], drafts, strict=False):
    print(f"{source}\n    {draft}")
