"""Everything that an adapter does with texts, behind one call."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from ..config import HEADS, TASK_OF_HEAD
from ..model import Strength, styles_of
from ..style import StyleBank
from .batches import rows_of
from .choosing import Choice, drafts, ranked
from .classifying import classify, tag
from .loading import load
from .ranking import Scores, default_score
from .rewriting import transfer
from .streaming import stream
from .writing import DRAWN, write

WRITERS = ("transfer", "generation")
TASKS = (*WRITERS, "classification", "token_classification")
Conversation = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class StylePipeline:
    """An adapter and what it does: texts in; rewrites, texts or classes out, in the order given.

    Attributes:
        model: A model with a style adapter.
        tokenizer: The backbone's.
        task: transfer, generation, classification or token_classification.
        batch_size: Texts at once.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    task: str = "transfer"
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuses an unknown task."""
        if self.task not in TASKS:
            raise ValueError(
                f"task={self.task!r} must be one of {', '.join(TASKS)}; leave it out for the adapter's own"
            )

    @property
    def styles(self) -> StyleBank:
        """The adapter's styles by name."""
        return styles_of(self.model)

    def __call__(self, texts: Any, style: Any = None, *, n: int = 1, **options: Any) -> Any:
        """What becomes of each text; of one text alone, that of it.

        Args:
            texts: A text, or a sequence of them. To write from: also a conversation, {"role", "content"} turns, or a
                sequence of these. To tag: a text, or a list of words, each.
            style: One for all, or one a text: a name, a `Style`, a mixture in words; the default if left out.
            n: How many rewrites or texts of each: 1 is the likeliest rewrite (or one drawn text) itself; above 1
                there is a list of at most n different ones for each text, best first.
            options: `strength`, a factor on the style or {part of the layers' names: factor}; those of `candidates`;
                of a classifier `text_pairs`.

        Returns:
            A text (or a list of n) a text; a class by its name; a list of class names, one a word.

        Raises:
            ValueError: A style that the adapter lacks, as many styles as neither 1 nor the number of texts, or an
                option out of its bounds.
        """
        alone = isinstance(texts, str) or (self.task == "generation" and _is_conversation(texts))
        rows = [texts] if alone else list(texts)
        if self.task in HEADS:
            found = self._classes(rows, style, **options)
        elif n == 1 and self.task == "transfer" and not _draws(options):
            options.pop("diversity", None)
            found = transfer(self.model, self.tokenizer, rows, style, batch_size=self.batch_size, **options)
        else:
            each = [[choice.text for choice in choices] for choices in self.candidates(rows, style, n=n, **options)]
            found = each if n > 1 else [texts[0] for texts in each]
        return found[0] if alone else found

    def candidates(  # noqa: PLR0913 - one option a way to draw
        self,
        texts: Sequence[Any],
        style: Any = None,
        *,
        n: int = 4,
        drawn: int | None = None,
        score: Scores | None = None,
        diversity: float | int = 1.0,
        strength: Strength = 1.0,
        top_k: int = 20,
        max_new_tokens: int | None = None,
        seed: int = 0,
    ) -> list[list[Choice]]:
        """At most n different rewrites (or texts) of each, best first, with their scores.

        The likeliest rewrite is always among those that are ranked; a written text is always drawn.

        Args:
            texts: As for a call.
            style: As for a call.
            n: How many are kept of each.
            drawn: How many are ranked, at least n; n if left out.
            score: How good one is: (texts, candidates, labels of styles) -> a number each. Of rewrites the adapter's
                own `default_score` if left out; of written texts none, which keeps the order of the draws.
            diversity: Temperature, and factor on the noise z where the adapter has `noise_dim`: at 0 all are alike.
            strength: A factor on the style.
            top_k: How many of the likeliest tokens may be drawn.
            max_new_tokens: Bound of a text.
            seed: Another one draws others.

        Raises:
            ValueError: As a call.
        """
        if n < 1 or (drawn is not None and drawn < n) or diversity < 0:
            raise ValueError(f"n={n} must be >= 1, drawn={drawn} >= n, and diversity={diversity} >= 0")
        styles, count = rows_of(self.model, style, len(texts)), drawn or n
        given: dict[str, Any] = {"strength": strength, "seed": seed, "batch_size": self.batch_size, "top_k": top_k}
        given |= {"temperature": float(diversity), "noise_scale": float(diversity)}
        if self.task == "transfer":
            found = drafts(
                self.model, self.tokenizer, texts, styles,
                samples=count - 1, max_new_tokens=max_new_tokens, **given,
            )  # fmt: skip
            score = score or default_score(self.model, self.tokenizer, batch_size=self.batch_size)
        else:
            prompt, prompts = self._prompts(texts)
            found = write(
                self.model, self.tokenizer, prompts, styles,
                samples=count, max_new_tokens=max_new_tokens or DRAWN, prompt=prompt, **given,
            )  # fmt: skip
            texts = prompts
        if score is None:
            return [[Choice(text, 0.0) for text in dict.fromkeys(each)][:n] for each in found]
        choices = ranked([*texts], found, self.styles.labels(styles), score)
        return [each[:n] for each in choices]

    def stream(self, text: Any, style: Any = None, **options: Any) -> Iterator[str]:
        """The pieces of one rewrite, or of a text that is drawn, as they are written; options of `stream`."""
        if self.task in HEADS:
            raise ValueError(f"task={self.task!r} has no text to stream; call the pipeline")
        if self.task == "generation":
            prompt, (text,) = self._prompts([text])
            options = {"prompt": prompt, "temperature": 1.0, "max_new_tokens": DRAWN} | options
        return stream(self.model, self.tokenizer, text, style, **options)

    def _classes(self, rows: list[Any], style: Any, *, text_pairs: Any = None, strength: Strength = 1.0) -> list[Any]:
        """The names of the classes of texts, or of their words."""
        names: Mapping[int, str] = self.model.config.id2label
        given: dict[str, Any] = {"strength": strength, "batch_size": self.batch_size}
        if self.task == "classification":
            pairs = [text_pairs] if isinstance(text_pairs, str) else text_pairs
            found = classify(self.model, self.tokenizer, rows, style, text_pairs=pairs, **given)
            return [names[label] for label in found]
        return [[names[i] for i in labels] for labels in tag(self.model, self.tokenizer, rows, style, **given)]

    def _prompts(self, rows: Sequence[Any]) -> tuple[str | None, list[str]]:
        """(what stands around each, the prompts): conversations by the backbone's template, texts by the adapter's."""
        talks = [_is_conversation(row) for row in rows]
        if not any(talks):
            return None, [*rows]
        if not all(talks) or not self.tokenizer.chat_template:
            raise ValueError(
                "texts must be all conversations or all texts, and conversations need a tokenizer with a chat_template"
            )
        return "{source}", [
            str(self.tokenizer.apply_chat_template([*row], tokenize=False, add_generation_prompt=True)) for row in rows
        ]


def pipeline(
    adapter: str | PeftModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    task: str | None = None,
    base: str | None = None,
    dtype: str = "auto",
    batch_size: int = 32,
) -> StylePipeline:
    """An adapter ready for texts.

    Args:
        adapter: Folder or hub id, or a model with a style adapter.
        tokenizer: The backbone's, for a model.
        task: transfer, generation, classification or token_classification; what the adapter's head is for if left
            out, and of texts transfer.
        base: Folder or hub id of the backbone, where the recorded one is not at hand.
        dtype: Precision of the frozen weights.
        batch_size: Texts at once.

    Raises:
        ValueError: An unknown task, a model without a tokenizer, or as `load`.

    Example:
        >>> pipe = pipeline("me/kjv-style")  # doctest: +SKIP
        >>> pipe(["God made the sky."], "0.7*kjv + 0.3*modern", n=3)  # doctest: +SKIP
    """
    if isinstance(adapter, str):
        model, tokenizer = load(adapter, base=base, dtype=dtype)
    else:
        model = adapter
    if tokenizer is None:
        raise ValueError("tokenizer=None must be the backbone's tokenizer where adapter is a model; add it")
    head = model.peft_config[model.active_adapters[0]].task_type
    return StylePipeline(model, tokenizer, task or TASK_OF_HEAD.get(head or "", "transfer"), batch_size)


def _is_conversation(text: Any) -> bool:
    """Whether `text` is a sequence of {"role", "content"} turns."""
    return not isinstance(text, str) and bool(text) and all(isinstance(turn, Mapping) for turn in text)


def _draws(options: Mapping[str, Any]) -> bool:
    """Whether something is to be ranked."""
    return options.get("drawn") is not None or options.get("score") is not None
