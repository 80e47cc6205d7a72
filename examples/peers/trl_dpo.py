"""TRL's DPOTrainer prefers, in each style, what that style would say over what the other would.

    python examples/peers/trl_dpo.py
    python examples/peers/trl_dpo.py --model HuggingFaceTB/SmolLM2-135M-Instruct --max_steps 200

As in trl_sft.py the column `style` must be kept and handed on. A batch of DPO is [chosen..., rejected...]:
StyleCollator repeats the styles for both halves. The reference is the frozen backbone; with an adapter that is trained
already (`DPOTrainer(model=peft_model)`) TRL takes a copy of it, which runs in the same styles.
"""

from collections.abc import Sequence

import torch
from tiny import STYLES, arguments, load, rows
from trl import DPOConfig, DPOTrainer

from style_adapter import StyleAdapterConfig, StyleCollator


def main(argv: Sequence[str] | None = None) -> list[float]:
    args = arguments(__doc__, argv, max_steps=60)
    backbone, tokenizer = load(args.model)
    trainer = DPOTrainer(
        model=backbone,
        args=DPOConfig(
            output_dir="runs/trl_dpo",
            max_steps=args.max_steps,
            per_device_train_batch_size=8,
            learning_rate=1e-2,
            use_cpu=not torch.cuda.is_available(),
            remove_unused_columns=False,
            logging_steps=max(args.max_steps // 4, 1),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows().rename_columns({"completion": "chosen", "other": "rejected"}),
        processing_class=tokenizer,
        peft_config=StyleAdapterConfig(styles=STYLES, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.data_collator = StyleCollator(trainer.data_collator)
    trainer.train()
    accuracies = [log["rewards/accuracies"] for log in trainer.state.log_history if "rewards/accuracies" in log]
    print("share of rows whose own style is preferred:", accuracies)
    return accuracies


if __name__ == "__main__":
    main()
