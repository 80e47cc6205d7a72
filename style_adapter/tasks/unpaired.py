"""Texts rewritten in a style, learnt from texts that have no counterpart in another one."""

from typing import Any

from torch import Tensor

from ..corruption import Corruption, StyleMarkers
from ..data import StylePool, UnpairedCollator, tokenize_unpaired
from ..functional import IGNORED
from ..inference import pad_id, prompt_of
from ..metrics import StyleJudge
from ..model import styles_of
from .rewriting import Orders, rewrite, score_rewrites
from .setting import Setting, row_ids_of


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
        pool, markers = StylePool.of(rows, labels), None
        pool.check_others()
        if args.marker_threshold and dataset is setting.trained_on:  # texts to evaluate on may be too few to have any
            markers = StyleMarkers.fit(list(dataset["text"]), labels, threshold=args.marker_threshold)
        return UnpairedCollator(
            setting.tokenizer,
            prompt_of(setting.model),
            pad_id(setting.tokenizer),
            setting.encode_styles,
            bank.labels,
            pool,
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
    def orders(rows: Any, setting: Setting) -> Orders:
        """Each text in another style than its own, the same one at each call."""
        pool, labels = setting.pool, styles_of(setting.model).labels(rows["style"])
        assert pool is not None
        others = [pool.other(label, row_id) for label, row_id in zip(labels, row_ids_of(rows), strict=True)]
        return Orders(list(rows["text"]), [pool.styles[other] for other in others])

    @staticmethod
    def predict(rows: Any, setting: Setting) -> list[str]:
        """Each text rewritten in another style."""
        return rewrite(UnpairedTask.orders(rows, setting), setting)

    @staticmethod
    def score(predictions: list[str], rows: Any, setting: Setting) -> dict[str, float]:
        """`score_rewrites` against the texts themselves."""
        return score_rewrites(predictions, UnpairedTask.orders(rows, setting), setting)
