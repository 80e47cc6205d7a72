"""Texts rewritten in a style."""

from typing import Any

import torch
from torch import Tensor

from ..data import TransferCollator, tokenize_transfer
from ..metrics import StyleJudge, score_transfer, style_score
from ..model import styles_of
from ..pipeline import pad_id, prompt_of, transfer
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
        args = setting.args
        return TransferCollator(
            pad_id(setting.tokenizer),
            setting.encode_styles,
            draws=setting.draws,
            fraction=args.adversary_fraction if args.plays else 0.0,
            novel_weight=args.novel_token_weight,
            decoder_only=not setting.model.config.is_encoder_decoder,
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
    def predict(rows: Any, setting: Setting) -> list[str]:
        """Each source rewritten."""
        batch_size = setting.args.generation_batch_size
        return transfer(setting.model, setting.tokenizer, rows["source"], rows["style"], batch_size=batch_size)

    @staticmethod
    def score(predictions: list[str], rows: Any, setting: Setting) -> dict[str, float]:
        """Style accuracy (0 to 1), BLEU and BLEU to the input (0 to 100) by direction, and `style_score`."""
        assert setting.judge is not None
        names = styles_of(setting.model).labels(rows["style"])
        scores = score_transfer(predictions, rows["source"], rows["target"], names, judge=setting.judge)
        flat = {f"{direction}_{k}": v for direction, s in scores.items() for k, v in s.to_dict().items()}
        return {**flat, "style_score": style_score(scores)}
