"""A style classifier on a frozen GPT-type backbone: the worked example of the style-transfer method.

    make quickstart                       # once: sets up the environment and the backbone
    python examples/style_classifier.py   # 2 minutes on two CPU cores

Texts with the styles positive, negative and neutral, each style given as {"text_style": [...]} (an image set would say
{"visual_style": [...]}); a head on top of the backbone is the style classifier, trained with cross entropy; the best
epoch on the validation set is kept; scikit-learn's report on the test set, before and after.
"""

from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from peft import PeftModel, get_peft_model
from sklearn.metrics import classification_report
from smollm2 import backbone_folder
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase, set_seed

from style_adapter import StyleAdapterConfig, StyleBank, StyleTrainer, StyleTrainingArguments, classify

NAMES = ("positive", "negative", "neutral")
TEXTS = Path(__file__).parent / "style_texts.jsonl"


def main() -> None:
    set_seed(0)
    splits = {split: rows(split) for split in ("train", "dev", "test")}
    backbone = AutoModelForSequenceClassification.from_pretrained(
        backbone_folder(), num_labels=len(NAMES), dtype=torch.bfloat16
    )
    tokenizer = AutoTokenizer.from_pretrained(backbone_folder())
    model = get_peft_model(backbone, StyleAdapterConfig(r=8, target_modules="all-linear", task_type="SEQ_CLS"))
    args = StyleTrainingArguments(
        output_dir="runs/style_classifier",
        task="classification",
        num_train_epochs=8,
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
    trainer = StyleTrainer(
        model=model, args=args, train_dataset=splits["train"], eval_dataset=splits["dev"], processing_class=tokenizer
    )
    report("before", model, tokenizer, splits["test"])
    trainer.train()
    report("after", model, tokenizer, splits["test"])


def rows(split: str) -> Dataset:
    """Texts of one split; the style is what the head must find, so it becomes the label and leaves the input."""
    bank = StyleBank(NAMES)
    found = load_dataset("json", data_files=str(TEXTS), split="train").filter(lambda row: row["split"] == split)
    return found.map(
        lambda row: {"label": NAMES.index(str(bank.parse(row["style"])))}, remove_columns=["style", "split"]
    )


def report(when: str, model: PeftModel, tokenizer: PreTrainedTokenizerBase, test: Dataset) -> None:
    found = classify(model, tokenizer, test["text"])
    print(f"\n{when}\n{classification_report(test['label'], found, target_names=NAMES, digits=3, zero_division=0.0)}")


if __name__ == "__main__":
    main()
