"""TRL's SFTTrainer trains a style adapter: each row trains the style that its column names.

    python examples/peers/trl_sft.py
    python examples/peers/trl_sft.py --model HuggingFaceTB/SmolLM2-135M-Instruct --max_steps 200

TRL drops columns that it does not know: `remove_unused_columns=False` keeps `style`, and StyleCollator hands it to the
model beside what TRL's own collator makes. Without both, every row trains the default style. For one style alone
neither is needed: `with styled(trainer.model, "loud"): trainer.train()`.
"""

from collections.abc import Sequence

import torch
from tiny import STYLES, answers, arguments, load, rows
from trl import SFTConfig, SFTTrainer

from style_adapter import StyleAdapterConfig, StyleCollator


def main(argv: Sequence[str] | None = None) -> dict[str, list[str]]:
    args = arguments(__doc__, argv, max_steps=60)
    backbone, tokenizer = load(args.model)
    trainer = SFTTrainer(
        model=backbone,
        args=SFTConfig(
            output_dir="runs/trl_sft",
            max_steps=args.max_steps,
            per_device_train_batch_size=8,
            learning_rate=1e-2,
            use_cpu=not torch.cuda.is_available(),
            remove_unused_columns=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows(),
        processing_class=tokenizer,
        peft_config=StyleAdapterConfig(styles=STYLES, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.data_collator = StyleCollator(trainer.data_collator)
    trainer.train()
    said = {style: answers(trainer.model, tokenizer, style) for style in STYLES}
    print(said)
    return said


if __name__ == "__main__":
    main()
