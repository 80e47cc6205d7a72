"""Texts rewritten in a style."""

from typing import Any

import torch
from torch import Tensor

from ..data import StylePool, TransferCollator, tokenize_transfer
from ..inference import pad_id, prompt_of
from ..metrics import StyleJudge
from ..model import styles_of
from .rewriting import Orders, rewrite, score_rewrites
from .setting import Setting


class TransferTask:
    """source -> target in a style; likelihood a target token, style metrics of greedy rewrites."""

    @staticmethod
    def tokenize(dataset: Any, setting: Setting) -> Any:
        """`dataset` as the collator reads it."""
        return tokenize_transfer(
            dataset, setting.tokenizer, prompt=prompt_of(setting.model), max_length=setting.args.max_length
        )

    @staticmethod
    def collator(setting: Setting, dataset: Any, rows: Any) -> TransferCollator:
        """Rows -> tensors."""
        args, bank = setting.args, styles_of(setting.model)
        pool = StylePool.of(rows, bank.labels(rows["style"])) if "synthetic" in rows.column_names else None
        return TransferCollator(
            pad_id(setting.tokenizer),
            setting.encode_styles,
            draws=setting.draws,
            fraction=args.adversary_fraction,
            novel_weight=args.novel_token_weight,
            decoder_only=not setting.model.config.is_encoder_decoder,
            pool=pool,
            label_styles=bank.labels,
        )

    @staticmethod
    def count(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The weight of all target tokens, which divides the likelihood, judged rows, and none to translate back."""
        judged = batch["judged"].sum()
        return batch["token_weights"].sum(), judged, torch.zeros_like(judged)

    @staticmethod
    def judge_of(dataset: Any, setting: Setting) -> StyleJudge:
        """A judge of the styles of `dataset`'s targets."""
        return StyleJudge.fit(dataset["target"], styles_of(setting.model).labels(dataset["style"]))

    @staticmethod
    def orders(rows: Any, setting: Setting) -> Orders:
        """Each source in its style."""
        return Orders(list(rows["source"]), list(rows["style"]))

    @staticmethod
    def predict(rows: Any, setting: Setting) -> list[str]:
        """Each source rewritten."""
        return rewrite(TransferTask.orders(rows, setting), setting)

    @staticmethod
    def score(predictions: list[str], rows: Any, setting: Setting) -> dict[str, float]:
        """`score_rewrites` against the targets."""
        orders = TransferTask.orders(rows, setting)
        return score_rewrites(predictions, orders, setting, references=list(rows["target"]))
