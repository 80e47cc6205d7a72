"""What a style adapter is compared with: PEFT's LoRA and whole blocks, trained by transformers' own Trainer.

The loop is the plain one: cross entropy on the target tokens, AdamW as Trainer sets it, the same rows, tokens, prompt,
batches, schedule and precision (trained weights in fp32, arithmetic in bf16) as the style adapter has.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from runs import PROMPT, TRAINING, Run, StopAfter, Trained, load_smollm2
from torch import Tensor, nn
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase, Trainer, TrainingArguments

from style_adapter.data.tokens import closed_ids, pad_and_mask, prompt_ids, room
from style_adapter.model import head_reads

NAMED_PROMPT = PROMPT.replace("Rewrite:", "Rewrite as {style}:")
"""The prompt of a model that serves several styles and has nothing but the prompt to tell them apart."""
BATCH = 32  # texts generated at once

Adapt = Callable[[Any], nn.Module]


def lora(backbone: Any, *, r: int) -> PeftModel:
    """PEFT's LoRA on every linear layer but the head, alpha = 2 r, as the style adapter has it."""
    config = LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(backbone, config)


def top_blocks(backbone: Any, *, count: int) -> nn.Module:
    """The last blocks and the norm behind them, trained whole: in fp32, for bf16 would round small steps away."""
    backbone.requires_grad_(False)
    for part in (*backbone.model.layers[-count:], backbone.model.norm):
        part.float().requires_grad_(True)
    return backbone


def one_for_all(rows: Dataset, run: Run, adapt: Adapt, *, prompt: str = NAMED_PROMPT) -> Trained:
    """One model on all rows, which the prompt tells the style."""
    torch.manual_seed(run.seed)
    backbone, tokenizer = load_smollm2(dtype=torch.bfloat16)
    model, clock = adapt(backbone), StopAfter(run.seconds)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(tempfile.mkdtemp(), **TRAINING | run.arguments()),
        train_dataset=tokenized(rows, tokenizer, prompt),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[clock],
    )
    trainer.train()
    return Trained(
        lambda wanted: rewritten(model, tokenizer, prompts_of(wanted, tokenizer, prompt)),
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        trainer.state.global_step,
        clock.spent,
    )


def one_each(rows: Dataset, run: Run, adapt: Adapt) -> Trained:
    """A model for each style, on the rows of that style alone; they share the steps of the run evenly."""
    styles = list(dict.fromkeys(rows["style"]))
    share = replace(run, steps=run.steps // len(styles), seconds=run.seconds / len(styles))
    own = {style: one_for_all(of_style(rows, style), share, adapt, prompt=PROMPT) for style in styles}

    def rewrite(wanted: Dataset) -> list[str]:
        texts = {style: iter(own[style].rewrite(of_style(wanted, style))) for style in dict.fromkeys(wanted["style"])}
        return [next(texts[style]) for style in wanted["style"]]

    total = {name: sum(getattr(part, name) for part in own.values()) for name in ("parameters", "steps", "seconds")}
    return Trained(rewrite, **total)


def of_style(rows: Dataset, style: str) -> Dataset:
    """The rows whose target is in `style`, in their order."""
    return rows.select([i for i, s in enumerate(rows["style"]) if s == style])


def prompts_of(rows: Dataset, tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[list[int]]:
    """The prompt around each source, its style filled in where the prompt has a place for it."""
    pairs = zip(rows["source"], rows["style"], strict=True)
    return [prompt_ids(tokenizer, prompt.replace("{style}", style), [source])[0] for source, style in pairs]


def tokenized(rows: Dataset, tokenizer: PreTrainedTokenizerBase, prompt: str) -> Dataset:
    """Prompt and target in one sequence, the end of the text included; labels at the target alone."""
    prompts, targets = prompts_of(rows, tokenizer, prompt), closed_ids(tokenizer, rows["target"])
    return Dataset.from_list(
        [
            {
                "input_ids": [*p, *t],
                "attention_mask": [1] * (len(p) + len(t)),
                "labels": [-100] * len(p) + t,
            }
            for p, t in zip(prompts, targets, strict=True)
        ]
    )


def rewritten(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]) -> list[str]:
    """Each prompt continued greedily, bounded as `transfer` bounds it."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    model.eval()
    # Autocast as in training: blocks in fp32 stand between blocks in bf16.
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16), head_reads(model, Tensor.contiguous):
        for rows in (order[i : i + BATCH] for i in range(0, len(order), BATCH)):
            ids, mask = pad_and_mask([prompts[i] for i in rows], tokenizer.pad_token_id, left=True)
            found = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=room(ids.shape[1]),
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
            new = tokenizer.batch_decode(found[:, ids.shape[1] :], skip_special_tokens=True)
            for i, text in zip(rows, new, strict=True):
                texts[i] = text.strip()
    return texts
