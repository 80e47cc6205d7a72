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
# # A style classifier on a frozen GPT-type backbone
#
# The worked example of the style-transfer method.
#
#     make quickstart                       # once: sets up the environment and the backbone
#     python examples/style_classifier.py   # 2 minutes on two CPU cores; EPOCHS=1 for a look
#
# Texts with the styles positive, negative and neutral, each style given as {"text_style": [...]} (an image set would
# say {"visual_style": [...]}); a head on top of the backbone is the style classifier, trained with cross entropy; the
# best epoch on the validation set is kept; scikit-learn's report on the test set, before and after.

# %%
import os
from pathlib import Path

import smollm2
import torch
from datasets import Dataset, load_dataset
from peft import PeftModel, get_peft_model
from sklearn.metrics import classification_report
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from style_adapter import StyleAdapterConfig, StyleBank, StyleTrainer, StyleTrainingArguments, classify

EPOCHS = int(os.environ.get("EPOCHS", "8"))
NAMES = ("positive", "negative", "neutral")
TEXTS = Path(smollm2.__file__).parent / "style_texts.jsonl"

# %% [markdown]
# ## Rows
#
# The style is what the head must find, so it becomes the label and leaves the input.


# %%
def rows(split: str) -> Dataset:
    """Texts of one split."""
    bank = StyleBank(NAMES)
    found = load_dataset("json", data_files=str(TEXTS), split="train").filter(lambda row: row["split"] == split)
    return found.map(
        lambda row: {"label": NAMES.index(str(bank.parse(row["style"])))}, remove_columns=["style", "split"]
    )


train, dev, test = (rows(split) for split in ("train", "dev", "test"))
print(train[0])

# %% [markdown]
# ## Before

# %%
set_seed(0)
folder = smollm2.backbone_folder()
backbone = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(NAMES), dtype=torch.bfloat16)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = get_peft_model(backbone, StyleAdapterConfig(r=8, target_modules="all-linear", task_type="SEQ_CLS"))


def report(model: PeftModel) -> str:
    """scikit-learn's report on the test set."""
    found = classify(model, tokenizer, test["text"])
    return classification_report(test["label"], found, target_names=NAMES, digits=3, zero_division=0.0)


print(report(model))

# %% [markdown]
# ## After

# %%
arguments = StyleTrainingArguments(
    output_dir="runs/style_classifier",
    task="classification",
    num_train_epochs=EPOCHS,
    per_device_train_batch_size=8,
    learning_rate=1e-3,
    warmup_steps=10,
    bf16=True,
    use_cpu=not torch.cuda.is_available(),
    eval_strategy="epoch",
    save_strategy="epoch",
    load_best_model_at_end=True,
    save_total_limit=1,
    logging_strategy="epoch",
    dataloader_pin_memory=False,
)
trainer = StyleTrainer(model=model, args=arguments, train_dataset=train, eval_dataset=dev, processing_class=tokenizer)
trainer.train()
print(report(model))
