"""The style in force: what the adapted layers of one model read at forward time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

import torch

from .bank import StyleBank, StyleCode

Codes = Mapping[str, StyleCode | None]  # by adapter; None is OFF

# One mapping for all models and all threads or tasks: each sees the styles it set itself. Never changed in place.
_IN_FORCE: ContextVar[Mapping["StyleContext", Codes]] = ContextVar(
    "style_adapter_in_force", default=MappingProxyType({})
)


class StyleContext:
    """What the adapted layers of one model share: the bank of each adapter, and the codes in force.

    The state that `hold` sets lives in a ContextVar: threads and asyncio tasks do not see one another's, and
    nothing outlives the block. Identity is the key, so a deep copy of a model has a context of its own.
    """

    def __init__(self) -> None:
        """Without adapters yet."""
        self.banks: dict[str, StyleBank] = {}
        self._defaults: dict[tuple[str, torch.device], tuple[StyleBank, StyleCode]] = {}

    def code(self, adapter: str, device: torch.device) -> StyleCode | None:
        """The code in force for `adapter` on `device`; its default style where none was set; None for OFF."""
        in_force = _IN_FORCE.get().get(self)
        if in_force is not None and adapter in in_force:
            code = in_force[adapter]
            return None if code is None else code.to(device)
        bank, code = self._defaults.get((adapter, device), (None, None))
        if code is None or bank is not self.banks[adapter]:  # identity: a bank of many names is slow to compare
            bank = self.banks[adapter]
            with torch.inference_mode(False):  # what is kept must serve training too
                code = bank.default_code().to(device)
            self._defaults[adapter, device] = bank, code
        return code

    def in_force(self) -> Codes:
        """The codes that were set, by adapter; empty where every adapter has its default."""
        return _IN_FORCE.get().get(self, {})

    @contextmanager
    def hold(self, codes: Codes) -> Iterator[None]:
        """`codes` are in force inside the block, over what was in force before; restored also after an error."""
        token = _IN_FORCE.set({**_IN_FORCE.get(), self: {**self.in_force(), **codes}})
        try:
            yield
        finally:
            _IN_FORCE.reset(token)

    @contextmanager
    def only(self, codes: Codes) -> Iterator[None]:
        """`codes` and nothing else are in force inside the block: what recomputes a forward later uses this."""
        token = _IN_FORCE.set({**_IN_FORCE.get(), self: codes})
        try:
            yield
        finally:
            _IN_FORCE.reset(token)
