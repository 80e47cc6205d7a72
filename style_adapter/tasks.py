"""What differs between tasks: how rows are prepared, collated and counted, and how a model is judged on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .arguments import StyleTrainingArguments
from .data import ClassificationCollator, StyleEncoding, TransferCollator, tokenize_classification, tokenize_transfer
from .functional import IGNORED
from .metrics import StyleJudge, class_scores, score_transfer, style_score
from .model import styles_of
from .pipeline import classify, pad_id, prompt_of, transfer


@dataclass(frozen=True)
class Setting:
    """What a task works on.

    Attributes:
        model: A model with a style adapter.
        tokenizer: The backbone's.
        args: The run's arguments.
        judge: Tells styles apart when transfers are scored.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    args: StyleTrainingArguments
    judge: StyleJudge | None = None

    @property
    def encode_styles(self) -> StyleEncoding:
        """A list of styles, one a row -> ids and weights."""
        bank = styles_of(self.model)

        def encode(styles: Sequence[Any]) -> tuple[Tensor, Tensor]:
            code = bank.code(list(styles))
            return code.ids, code.weights

        return encode


class TransferTask:
    """source -> target in a style; likelihood a target token, style metrics of greedy rewrites."""

    @staticmethod
    def tokenize(dataset: Any, setting: Setting) -> Any:
        """`dataset` as the collator reads it."""
        return tokenize_transfer(
            dataset, setting.tokenizer, prompt=prompt_of(setting.model), max_length=setting.args.max_length
        )

    @staticmethod
    def collator(setting: Setting) -> TransferCollator:
        """Rows -> tensors."""
        args = setting.args
        return TransferCollator(
            pad_id(setting.tokenizer),
            setting.encode_styles,
            fraction=args.adversary_fraction if args.plays else 0.0,
            novel_weight=args.novel_token_weight,
            decoder_only=not setting.model.config.is_encoder_decoder,
        )

    @staticmethod
    def count(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The weight of all target tokens, which divides the likelihood, and judged rows, for every other term."""
        return batch["token_weights"].sum(), batch["judged"].sum()

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


class ClassificationTask:
    """text -> label by the model's own head, the style classifier; accuracy and macro-F1."""

    @staticmethod
    def tokenize(dataset: Any, setting: Setting) -> Any:
        """`dataset` as the collator reads it.

        Raises:
            ValueError: A class that the model's head does not have.
        """
        most, classes = max(dataset["label"]), setting.model.config.num_labels
        if most >= classes:
            raise ValueError(
                f"label {most} must be < num_labels={classes}; load the backbone with num_labels={most + 1}"
            )
        return tokenize_classification(
            dataset,
            setting.tokenizer,
            default_style=styles_of(setting.model).default,
            max_length=setting.args.max_length,
        )

    @staticmethod
    def collator(setting: Setting) -> ClassificationCollator:
        """Rows -> tensors."""
        return ClassificationCollator(pad_id(setting.tokenizer), setting.encode_styles)

    @staticmethod
    def count(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Labelled rows, and none judged."""
        return (batch["labels"] != IGNORED).sum(), batch["labels"].new_zeros(())

    @staticmethod
    def judge_of(dataset: Any, setting: Setting) -> None:
        """Labels need no judge."""

    @staticmethod
    def predict(rows: Any, setting: Setting) -> list[int]:
        """The most likely class of each text."""
        styles = rows["style"] if "style" in rows.column_names else None
        pairs = rows["text_pair"] if "text_pair" in rows.column_names else None
        return classify(
            setting.model,
            setting.tokenizer,
            rows["text"],
            styles,
            text_pairs=pairs,
            batch_size=setting.args.per_device_eval_batch_size,
        )

    @staticmethod
    def score(predictions: list[int], rows: Any, setting: Setting) -> dict[str, float]:
        """Accuracy and macro-F1, 0 to 1; `style_score` is the accuracy."""
        scores = class_scores(predictions, rows["label"])
        return {**scores, "style_score": scores["accuracy"]}


Task = type[TransferTask] | type[ClassificationTask]
TASKS: dict[str, Task] = {"transfer": TransferTask, "classification": ClassificationTask}
