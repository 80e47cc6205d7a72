"""Texts rewritten in a style, learnt from texts that have no counterpart in another one."""

from typing import Any

from torch import Tensor

from ..corruption import Corruption, StyleMarkers
from ..data import StylePool, UnpairedCollator, tokenize_unpaired
from ..functional import IGNORED
from ..metrics import StyleJudge, score_transfer, style_score
from ..model import styles_of
from ..pipeline import pad_id, prompt_of, transfer
from .setting import Setting


class UnpairedTask:
    """text, style -> the same text in another style; likelihood a token, style metrics of greedy rewrites."""

    @staticmethod
    def tokenize(dataset: Any, setting: Setting) -> Any:
        """`dataset` as the collator reads it."""
        return tokenize_unpaired(
            dataset, setting.tokenizer, prompt=prompt_of(setting.model), max_length=setting.args.max_length
        )

    @staticmethod
    def collator(setting: Setting, dataset: Any, rows: Any) -> UnpairedCollator:
        """Rows -> tensors; `rows` are those of `dataset`, tokenised."""
        args, bank = setting.args, styles_of(setting.model)
        labels = bank.labels(rows["style"])
        markers = None
        if args.marker_threshold:
            markers = StyleMarkers.fit(list(dataset["text"]), labels, threshold=args.marker_threshold)
        return UnpairedCollator(
            setting.tokenizer,
            prompt_of(setting.model),
            pad_id(setting.tokenizer),
            setting.encode_styles,
            bank.labels,
            StylePool.of(rows, labels),
            Corruption(drop=args.drop_words, reach=args.shuffle_reach, markers=markers),
            draws=setting.draws,
            fraction=args.adversary_fraction,
            novel_weight=args.novel_token_weight,
            decoder_only=not setting.model.config.is_encoder_decoder,
        )

    @staticmethod
    def count(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The weight of all tokens to rebuild, judged rows, and tokens of the judged rows to translate back to."""
        judged = batch["judged"]
        return batch["token_weights"].sum(), judged.sum(), (batch["labels"][judged] != IGNORED).sum()

    @staticmethod
    def judge_of(dataset: Any, setting: Setting) -> StyleJudge:
        """A judge of the styles of `dataset`'s texts."""
        return StyleJudge.fit(dataset["text"], styles_of(setting.model).labels(dataset["style"]))

    @staticmethod
    def predict(rows: Any, setting: Setting) -> list[str]:
        """Each text rewritten in another style."""
        batch_size = setting.args.generation_batch_size
        return transfer(setting.model, setting.tokenizer, rows["text"], _wanted(rows, setting), batch_size=batch_size)

    @staticmethod
    def score(predictions: list[str], rows: Any, setting: Setting) -> dict[str, float]:
        """Style accuracy (0 to 1) and BLEU to the input (0 to 100) by direction, and `style_score`."""
        assert setting.judge is not None
        names = styles_of(setting.model).labels(_wanted(rows, setting))
        scores = score_transfer(predictions, rows["text"], rows["text"], names, judge=setting.judge)
        flat = {f"{direction}_{k}": v for direction, s in scores.items() for k, v in s.to_dict().items()}
        return {**flat, "style_score": style_score(scores)}


def _wanted(rows: Any, setting: Setting) -> list[Any]:
    """The other style that each row is rewritten in."""
    pool = setting.pool
    assert pool is not None
    labels = styles_of(setting.model).labels(rows["style"])
    return [pool.styles[pool.other(label, row)] for row, label in enumerate(labels)]
