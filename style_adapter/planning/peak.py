"""How much memory some code needs at most."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """The most bytes of tensors made inside the block that were alive at one time; of fake tensors as of real ones.

    A storage counts from the operation that makes it until nothing holds it, autograd's graph included.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """`known` were there before."""
        super().__init__()
        self.now = self.peak = 0
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation, and counts what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        """Once a storage."""
        if storage in self._seen:
            return
        self._seen.add(storage)
        weakref.finalize(storage, self._free, storage.nbytes())
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _free(self, size: int) -> None:
        self.now -= size
