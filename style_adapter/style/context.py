"""The style in force: what the adapted layers of one model read at forward time."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .bank import StyleBank, StyleCode

Codes = Mapping[str, StyleCode | None]  # by adapter; None is OFF


@dataclass(frozen=True)
class InForce:
    """What was set for one model: never changed in place.

    Attributes:
        codes: By adapter; an adapter that is not here has its default style.
        adapters: Those that run instead of the active ones, where PEFT's `adapter_names` chose one a row.
        rows: That choice, one adapter a row.
        batches: Sizes of the first dimension of what the model was called with.
        lengths: Sizes of the second dimension of what the model was called with: some models flatten [batch, length, d]
            to [batch * length, d] before a layer.
    """

    codes: Codes = field(default_factory=dict)
    adapters: tuple[str, ...] | None = None
    rows: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()


NOTHING = InForce()

# One mapping for all models and all threads or tasks: each sees the styles it set itself. Never changed in place.
_IN_FORCE: ContextVar[Mapping["StyleContext", InForce]] = ContextVar(
    "style_adapter_in_force", default=MappingProxyType({})
)


class StyleContext:
    """What the adapted layers of one model share: the bank of each adapter, their own names, the codes in force.

    The state that `hold` sets lives in a ContextVar: threads and asyncio tasks do not see one another's, and
    nothing outlives the block. Identity is the key, so a deep copy of a model has a context of its own.

    A compiled model cannot read a ContextVar without breaking its graph. It reads `shown` instead, a copy of what is in
    force that torch.compile takes as inputs of the graph: tensors of fixed shapes, so that another style, strength or
    mixture compiles nothing anew. Each thread has a copy of its own; the asyncio tasks of one thread share it, so a
    task that runs a compiled model must not await between entering `styled` and the call.

    Attributes:
        changes: How often, in this process, a layer was adapted, merged, copied or taken away: what is remembered about
            the layers of a model holds while this stands still.
    """

    changes: ClassVar[int] = 0

    def __init__(self) -> None:
        """Without adapters yet."""
        self.banks: dict[str, StyleBank] = {}
        self.layers: list[str] = []  # names of the adapted modules, in the order of their numbers
        self._defaults: dict[tuple[str, torch.device], tuple[StyleBank, StyleCode]] = {}
        self._ones: dict[torch.device, Float[Tensor, " layers"]] = {}
        self.shown = Shown(self)

    def __getstate__(self) -> dict[str, Any]:
        """What travels with a copy: all but what the threads of this process see."""
        return {name: value for name, value in vars(self).items() if name != "shown"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy, for which nothing is set."""
        vars(self).update(state)
        self.shown = Shown(self)
        self.note_change()

    @classmethod
    def note_change(cls) -> None:
        """Layers were adapted, merged, copied or taken away."""
        StyleContext.changes += 1

    def add_bank(self, adapter: str, bank: StyleBank) -> None:
        """Makes the styles of `adapter` known, in place of those it had."""
        if self.banks.get(adapter) != bank:
            self.banks[adapter] = bank
            self.shown = Shown(self)

    def drop_bank(self, adapter: str) -> None:
        """Forgets the styles of `adapter`."""
        if self.banks.pop(adapter, None) is not None:
            self.shown = Shown(self)

    def number_of(self, layer: str) -> int:
        """The number of the adapted module `layer`: its place in a strength tensor."""
        self.note_change()
        if layer not in self.layers:
            self.layers.append(layer)
            self.shown = Shown(self)
        return self.layers.index(layer)

    def adapters(self, active: Sequence[str]) -> Sequence[str]:
        """The adapters that run: those of a mixed batch, else the `active` ones."""
        named = self.shown.adapters if torch.compiler.is_compiling() else self.in_force().adapters
        return active if named is None else named

    def code(self, adapter: str, device: torch.device) -> StyleCode | None:
        """The code in force for `adapter` on `device`; its default style where none was set; None for OFF."""
        if torch.compiler.is_compiling():
            return self.shown.codes[adapter].to(device)
        codes = self.in_force().codes
        if adapter in codes:
            code = codes[adapter]
            return None if code is None else code.to(device)
        return self.default_code(adapter, device)

    def default_code(self, adapter: str, device: torch.device) -> StyleCode:
        """The code of the adapter's default style, made once a device."""
        bank, code = self._defaults.get((adapter, device), (None, None))
        if code is None or bank is not self.banks[adapter]:  # identity: a bank of many names is slow to compare
            bank = self.banks[adapter]
            # what is kept must serve training too, and be real where a model is made on the meta device
            with torch.inference_mode(False), torch.device("cpu"):
                code = bank.default_code().to(device)
            self._defaults[adapter, device] = bank, code
        return code

    def ones(self, device: torch.device) -> Float[Tensor, " layers"]:
        """Strength 1 of each layer, made once a device."""
        ones = self._ones.get(device)
        if ones is None or len(ones) != len(self.layers):
            with torch.inference_mode(False), torch.device("cpu"):
                ones = self._ones[device] = torch.ones(len(self.layers)).to(device)
        return ones

    def in_force(self) -> InForce:
        """What was set for this model; `NOTHING` where every adapter has its default."""
        return _IN_FORCE.get().get(self, NOTHING)

    def is_set(self) -> bool:
        """Whether this thread or task has set something for this model, be it `NOTHING`."""
        return self in _IN_FORCE.get()

    def row_counts(self) -> set[int]:
        """How many rows an input may have where a style for each row is in force; empty where none is."""
        codes = [code for code in self.in_force().codes.values() if code is not None and code.rows > 1]
        return {code.rows * repeats for code in codes for repeats in (1, *code.repeats)}

    def repeats_of(self, code: StyleCode) -> Iterator[int]:
        """How often an input may hold each row of `code` one after another: beams, and positions of flattened rows."""
        lengths = () if torch.compiler.is_compiling() else self.in_force().lengths
        for repeats in (1, *code.repeats):
            yield repeats
            yield from (repeats * length for length in lengths)

    def batch_of(self, code: StyleCode) -> int:
        """How many rows the batch has, for a layer whose own input does not tell: those of `code`, maybe repeated."""
        sizes = () if torch.compiler.is_compiling() else self.in_force().batches
        likely = [code.rows * repeats for repeats in (1, *code.repeats)]
        return next((size for size in sizes if size in likely), code.rows)

    @contextmanager
    def hold(self, codes: Codes, *, rows: Sequence[str] | None = None) -> Iterator[None]:
        """`codes` are in force inside the block, over what was in force before; restored also after an error.

        With `rows`, PEFT's `adapter_names`, exactly the adapters of `codes` run.
        """
        before = self.in_force()
        now = replace(before, codes={**before.codes, **codes})
        if rows is not None:
            now = replace(now, adapters=tuple(codes), rows=tuple(rows))
        with self.only(now):
            yield

    @contextmanager
    def only(self, in_force: InForce) -> Iterator[None]:
        """`in_force` and nothing else holds inside the block: what recomputes a forward later uses this."""
        token = _IN_FORCE.set({**_IN_FORCE.get(), self: in_force})
        self.shown.refresh(self)
        try:
            yield
        finally:
            _IN_FORCE.reset(token)
            self.shown.refresh(self)

    @contextmanager
    def called_with(self, shapes: Sequence[Sequence[int]]) -> Iterator[None]:
        """Inside the block the layers know the sizes of the model's inputs, [batch, length, ...] each."""
        batches, lengths = (tuple(shape[i] for shape in shapes) for i in (0, 1))
        known = replace(self.in_force(), batches=batches, lengths=lengths)
        token = _IN_FORCE.set({**_IN_FORCE.get(), self: known})
        try:
            yield
        finally:
            _IN_FORCE.reset(token)


class Shown(threading.local):
    """What is in force as a compiled graph finds it, one copy a thread: plain attributes, None only for no noise.

    Attributes:
        codes: By adapter, for each that the context knows; OFF as weights of zero, strength 1 as a tensor of ones.
        adapters: As in `InForce`.
        now: The whole of it, for what recomputes a forward later.
    """

    def __init__(self, context: StyleContext) -> None:
        """What is in force in this thread; Python calls it anew in each thread that reads an attribute."""
        self.refresh(context)

    def refresh(self, context: StyleContext) -> None:
        """Copies what is in force in this thread."""
        now, codes = context.in_force(), {}
        for adapter in context.banks:
            code = now.codes.get(adapter)
            if code is None:
                code = context.default_code(adapter, torch.device("cpu"))
                if adapter in now.codes:
                    code = code.weighted(0.0)
            if code.strength is None:
                code = replace(code, strength=context.ones(code.ids.device))
            codes[adapter] = code
        self.codes, self.adapters, self.now = codes, now.adapters, now
