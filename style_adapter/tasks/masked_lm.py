"""The language of a style learnt without labels: tokens masked, and told by an encoder."""

from functools import partial
from typing import Any

import torch

from ..corruption import mask_tokens
from ..data import ClassificationCollator, MaskedCollator, tokenize_masked
from ..functional import IGNORED
from ..inference import evaluating, pad_id
from ..model import styled
from ..style import StyleCode
from .labelled import LabelTask, tokenized
from .setting import Setting, row_ids_of


class MaskedTask(LabelTask):
    """text -> its masked tokens; likelihood a masked token, and the share of them that is told right."""

    @staticmethod
    def tokenize(dataset: Any, setting: Setting) -> Any:
        """`dataset` as the collator reads it."""
        return tokenized(tokenize_masked, dataset, setting)

    @staticmethod
    def collator(setting: Setting, dataset: Any, rows: Any) -> MaskedCollator:
        """Rows -> tensors, other masks in each epoch."""
        tokenizer, args = setting.tokenizer, setting.args
        mask = partial(
            mask_tokens,
            mask_id=tokenizer.mask_token_id,
            vocab_size=len(tokenizer),
            special=frozenset(tokenizer.all_special_ids),
            rate=args.mask_rate,
        )
        plain = ClassificationCollator(pad_id(tokenizer), setting.encode_styles, setting.draws)
        return MaskedCollator(plain, mask, setting.draws)

    @staticmethod
    def predict(rows: Any, setting: Setting) -> list[list[bool]]:
        """Of each masked token of each text whether it is told right; the masks are those of epoch 0."""
        model, size = setting.model, setting.args.per_device_eval_batch_size
        ids = row_ids_of(rows)
        tokenized = MaskedTask.tokenize(rows, setting)
        tokens = [{**row, "epoch": 0, "row_id": ids[i]} for i, row in enumerate(tokenized)]
        collate = MaskedTask.collator(setting, rows, tokenized)
        found: list[list[bool]] = []
        with evaluating(model):
            for i in range(0, len(tokens), size):
                batch = {name: tensor.to(model.device) for name, tensor in collate(tokens[i : i + size]).items()}
                with styled(model, StyleCode(batch["style_ids"], batch["style_weights"])):
                    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                told, masked = logits.argmax(dim=-1) == batch["labels"], batch["labels"] != IGNORED
                found += [row[kept].tolist() for row, kept in zip(told, masked, strict=True)]
        return found

    @staticmethod
    def score(predictions: list[list[bool]], rows: Any, setting: Setting) -> dict[str, float]:
        """The share of masked tokens told right, 0 to 1; `style_score` is the same."""
        told = torch.tensor([right for text in predictions for right in text], dtype=torch.float64)
        accuracy = float(told.mean()) if len(told) else 0.0
        return {"accuracy": accuracy, "style_score": accuracy}
