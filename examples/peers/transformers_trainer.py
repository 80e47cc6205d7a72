"""transformers' plain Trainer: a column named `styles` reaches the model.

    python examples/peers/transformers_trainer.py
    python examples/peers/transformers_trainer.py --model HuggingFaceTB/SmolLM2-135M-Instruct --max_steps 200

The model's forward takes `styles`, so Trainer keeps a column of that name (another name needs
`remove_unused_columns=False`). Row numbers need nothing more: the default collator makes them a LongTensor. Names and
mixtures need StyleCollator: the default collator drops texts without a word, and every row trains the default style.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft import get_peft_model
from tiny import STYLES, answers, arguments, load, rows
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from style_adapter import StyleAdapterConfig, StyleCollator


def main(argv: Sequence[str] | None = None) -> dict[str, list[str]]:
    args = arguments(__doc__, argv, max_steps=60)
    backbone, tokenizer = load(args.model)
    config = StyleAdapterConfig(styles=STYLES, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(backbone, config)

    def tokenized(row: dict[str, Any]) -> dict[str, Any]:
        prompt = tokenizer(row["prompt"])["input_ids"]
        completion = [*tokenizer(row["completion"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        labels = [-100] * len(prompt) + completion
        return {"input_ids": prompt + completion, "labels": labels, "styles": row["style"]}

    data = rows()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir="runs/transformers_trainer",
            max_steps=args.max_steps,
            learning_rate=1e-2,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=data.map(tokenized, remove_columns=data.column_names),
        data_collator=StyleCollator(DataCollatorForSeq2Seq(tokenizer), column="styles"),
    )
    trainer.train()
    said = {style: answers(model, tokenizer, style) for style in STYLES}
    print(said)
    return said


if __name__ == "__main__":
    main()
