"""The style in force: what the adapted layers of one model read at forward time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch

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

    A compiled model cannot read a ContextVar without breaking its graph. It reads `traced` instead, a copy of what is
    in force that torch.compile takes as inputs of the graph: tensors of fixed shapes, so that another style, strength
    or mixture compiles nothing anew. That copy is one for all threads: run a compiled model in one thread at a time.
    """

    def __init__(self) -> None:
        """Without adapters yet."""
        self.banks: dict[str, StyleBank] = {}
        self.layers: list[str] = []  # names of the adapted modules, in the order of their numbers
        self.traced: dict[str, StyleCode] = {}
        self.traced_adapters: tuple[str, ...] | None = None
        self._defaults: dict[tuple[str, torch.device], tuple[StyleBank, StyleCode]] = {}

    def add_bank(self, adapter: str, bank: StyleBank) -> None:
        """Makes the styles of `adapter` known, in place of those it had."""
        if self.banks.get(adapter) != bank:
            self.banks[adapter] = bank
            self._show_to_compiler()

    def drop_bank(self, adapter: str) -> None:
        """Forgets the styles of `adapter`."""
        if self.banks.pop(adapter, None) is not None:
            self._show_to_compiler()

    def number_of(self, layer: str) -> int:
        """The number of the adapted module `layer`: its place in a strength tensor."""
        if layer not in self.layers:
            self.layers.append(layer)
        return self.layers.index(layer)

    def adapters(self, active: Sequence[str]) -> Sequence[str]:
        """The adapters that run: those of a mixed batch, else the `active` ones."""
        named = self.traced_adapters if torch.compiler.is_compiling() else self.in_force().adapters
        return active if named is None else named

    def code(self, adapter: str, device: torch.device) -> StyleCode | None:
        """The code in force for `adapter` on `device`; its default style where none was set; None for OFF."""
        if torch.compiler.is_compiling():
            return self.traced[adapter].to(device)
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

    def in_force(self) -> InForce:
        """What was set for this model; `NOTHING` where every adapter has its default."""
        return _IN_FORCE.get().get(self, NOTHING)

    def holds_rows(self) -> bool:
        """Whether a style for each row is in force."""
        return any(code is not None and code.rows > 1 for code in self.in_force().codes.values())

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
        self._show_to_compiler()
        try:
            yield
        finally:
            _IN_FORCE.reset(token)
            self._show_to_compiler()

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

    def _show_to_compiler(self) -> None:
        """Copies what is in force to where a compiled graph finds it; OFF as weights of zero, of the same shape."""
        now, traced = self.in_force(), {}
        for adapter in self.banks:
            code = now.codes.get(adapter)
            if code is None:
                code = self.default_code(adapter, torch.device("cpu"))
                if adapter in now.codes:
                    code = replace(code, weights=torch.zeros_like(code.weights))
            traced[adapter] = code
        self.traced, self.traced_adapters = traced, now.adapters
