"""Features of real texts, computed once: the backbone is frozen, so they do not change."""

import os
import tempfile
import weakref
from collections.abc import Callable
from typing import IO

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

STORES = ("none", "memory", "disk")


class FeatureStore:
    """Keeps phi_k of each text by its row id, in memory or in a memory-mapped file that goes with the process.

    Each text is read alone, so that its features depend on nothing but itself: those of a resumed run, or of another
    split into batches, are the same bit by bit.

    Args:
        where: "memory" or "disk".
        folder: Where the file is, for "disk".
    """

    def __init__(self, where: str, folder: str | None = None) -> None:
        """Nothing is kept yet."""
        if where not in STORES[1:]:
            raise ValueError(f"where={where!r} must be one of {', '.join(STORES[1:])}; choose one")
        self._kept: dict[int, Tensor] = {}
        self._places: dict[int, tuple[int, torch.Size, torch.dtype]] = {}
        self._file: IO[bytes] | None = None
        if where == "disk":
            if folder is not None:
                os.makedirs(folder, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, prefix="features-")  # noqa: SIM115 - closed with the store
            weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        """Number of texts kept."""
        return len(self._kept) + len(self._places)

    def __call__(
        self,
        ids: Int[Tensor, " rows"],
        tokens: Int[Tensor, " tokens"],
        mask: Bool[Tensor, "rows seq"],
        read: Callable[[Int[Tensor, " tokens"], Bool[Tensor, "1 seq"]], Float[Tensor, "1 seq dim"]],
    ) -> Float[Tensor, "rows seq dim"]:
        """The features of each row, zero at padding; what is not kept yet is read by `read` and kept."""
        texts = tokens.split(mask.sum(-1).tolist())
        found = []
        for row, text in zip(ids.tolist(), texts, strict=True):
            if row not in self._kept and row not in self._places:
                self._keep(row, read(text, torch.ones_like(text, dtype=torch.bool)[None])[0].cpu())
            found.append(self._recall(row).to(tokens.device))
        features = found[0].new_zeros(*mask.shape, found[0].shape[-1])
        return features.masked_scatter(mask[..., None], torch.cat(found))

    def _keep(self, row: int, features: Float[Tensor, "seq dim"]) -> None:
        """Keeps the features of one text."""
        if self._file is None:
            self._kept[row] = features
            return
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(features.contiguous().view(torch.uint8).numpy().tobytes())
        self._file.flush()
        self._places[row] = place, features.shape, features.dtype

    def _recall(self, row: int) -> Float[Tensor, "seq dim"]:
        """The features of one text."""
        if self._file is None:
            return self._kept[row]
        place, shape, dtype = self._places[row]
        # "c": torch warns of what it may not write to; nothing is written, so nothing is copied either.
        mapped = np.memmap(self._file, np.uint8, "c", place, shape.numel() * dtype.itemsize)
        return torch.from_numpy(mapped).view(dtype).view(shape)
