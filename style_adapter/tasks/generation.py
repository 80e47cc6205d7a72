"""Texts written in a style: transfer whose source is a prompt, or nothing."""

from typing import Any

from ..data import as_transfer, prompts_of
from ..inference import write
from ..metrics import StyleJudge, distinct_n, repeat_rate, style_accuracy
from ..model import styles_of
from .rewriting import Orders
from .setting import Setting, row_ids_of
from .transfer import TransferTask


class GenerationTask(TransferTask):
    """prompt or nothing, style, noise -> text; likelihood a token of the text, style and variety of sampled texts."""

    @staticmethod
    def tokenize(dataset: Any, setting: Setting) -> Any:
        """`dataset` as the collator reads it."""
        return TransferTask.tokenize(as_transfer(dataset), setting)

    @staticmethod
    def judge_of(dataset: Any, setting: Setting) -> StyleJudge:
        """A judge of the styles of `dataset`'s texts."""
        return TransferTask.judge_of(as_transfer(dataset), setting)

    @staticmethod
    def orders(rows: Any, setting: Setting) -> Orders:
        """A text in each style, from its prompt; nothing of the prompt has to be in the text."""
        return Orders(prompts_of(rows), list(rows["style"]), rewrites=False)

    @staticmethod
    def predict(rows: Any, setting: Setting) -> list[str]:
        """A text for each prompt in its style, the same draws at each evaluation."""
        args = setting.args
        texts = write(
            setting.model,
            setting.tokenizer,
            prompts_of(rows),
            rows["style"],
            max_new_tokens=args.eval_max_new_tokens,
            seed=args.seed,
            row_ids=row_ids_of(rows),
            batch_size=args.generation_batch_size,
        )
        return [text for (text,) in texts]

    @staticmethod
    def score(predictions: list[str], rows: Any, setting: Setting) -> dict[str, float]:
        """Style accuracy, distinct-2 and the share of texts known from training, 0 to 1.

        `style_score` = style accuracy * distinct-2: one text over and over is in its style, and noise is varied.
        Neither is there without a judge, where all texts are of one style.
        """
        assert setting.trained_on is not None
        long_enough = any(len(text.split()) > 1 for text in predictions)
        distinct = distinct_n(predictions, 2) if long_enough else 0.0
        copied = repeat_rate(predictions, setting.trained_on["text"])
        scores = {"distinct_2": distinct, "copy_rate": copied}
        if setting.judge is None:
            return scores
        accuracy = style_accuracy(predictions, styles_of(setting.model).labels(rows["style"]), setting.judge)
        return {"style_accuracy": accuracy, **scores, "style_score": accuracy * distinct}
