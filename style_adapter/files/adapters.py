"""The adapter of a run: what tells it from others, its styles, and its work on one shard."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..config import StyleAdapterConfig
from ..disk import digest
from ..inference import load, transfer, transfer_best
from ..model import bank_of
from ..style import Style, StyleBank
from .job import Job


def read_bank(job: Job) -> StyleBank:
    """The styles of the adapter, without its backbone.

    Raises:
        ValueError: It is no style adapter.
    """
    config = PeftConfig.from_pretrained(job.adapter)
    if not isinstance(config, StyleAdapterConfig):
        raise ValueError(f"adapter={job.adapter!r} is of the kind {config.peft_type} and must be a style adapter")
    return bank_of(config)


def style_of(job: Job, bank: StyleBank) -> Style | None:
    """The one style of all rows; None where each has its own.

    Raises:
        ValueError: An unknown style, or several.
    """
    if job.style_column is not None:
        return None
    styles = bank.rows(bank.usual if job.style is None else job.style)
    if len(styles) != 1:
        raise ValueError(f"style={job.style!r} names {len(styles)} styles and must name 1; one a row: style_column")
    return styles[0]


def identity_of_adapter(job: Job, style: Style | None) -> dict[str, Any]:
    """Digests of the adapter's config and weights, and what the style is."""
    features = None if style is None or style.features is None else style.features.tolist()
    return {
        "style": None if style is None else str(style),
        **({} if features is None else {"style_features": features}),
        "adapter_config": _digest_of(job.adapter, CONFIG_NAME),
        "adapter_weights": _digest_of(job.adapter, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME),
    }


def _digest_of(adapter: str, *names: str) -> str:
    """SHA-256 of the first of these files that the adapter has, in its folder or on the hub."""
    for name in names[:-1]:
        if found := cached_file(adapter, name, _raise_exceptions_for_missing_entries=False):
            return digest(Path(found))
    found = cached_file(adapter, names[-1])
    assert found is not None
    return digest(Path(found))


class Rewriter:
    """The adapter on its backbone, loaded when the first text comes."""

    def __init__(self, job: Job, device: torch.device) -> None:
        """Nothing is loaded yet."""
        self.job, self.device = job, device

    @cached_property
    def loaded(self) -> tuple[PeftModel, PreTrainedTokenizerBase]:
        """The model and its tokenizer."""
        model, tokenizer = load(self.job.adapter, base=self.job.base)
        return model.to(self.device), tokenizer

    def __call__(self, texts: Sequence[str | None], styles: Any, row_ids: Sequence[int]) -> list[str | None]:
        """Each text rewritten; one without a word in it comes back as it is, and so does null."""
        job = self.job
        given: dict[str, Any] = {"strength": job.strength, "batch_size": job.batch_size}
        given |= {"max_new_tokens": job.max_new_tokens}
        sources = [text or "" for text in texts]
        if job.candidates:
            given |= {"samples": job.candidates, "seed": job.seed, "row_ids": row_ids}
            found = transfer_best(*self.loaded, sources, styles, **given)
        else:
            found = transfer(*self.loaded, sources, styles, num_beams=job.num_beams, **given)
        return [None if text is None else rewrite for text, rewrite in zip(texts, found, strict=True)]
