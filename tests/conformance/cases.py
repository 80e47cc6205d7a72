"""The register of operations, and the cases: each operation on each architecture that it applies to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .architectures import ARCHITECTURES, Architecture
from .methods import LORA, STYLE, Method

Run = Callable[[Method, Architecture], None]


@dataclass(frozen=True)
class Operation:
    """Something that users do with an adapter.

    Attributes:
        run: Does it with a method on an architecture, and asserts against something trusted.
        where: The architectures that it applies to.
        ours: It exists for style adapters only.
    """

    run: Run
    where: Callable[[Architecture], bool]
    ours: bool

    @property
    def name(self) -> str:
        """The function's name."""
        return self.run.__name__


OPERATIONS: list[Operation] = []


def operation(where: Callable[[Architecture], bool] = lambda a: True, *, ours: bool = False) -> Callable[[Run], Run]:
    """Registers the function as an operation."""

    def register(run: Run) -> Run:
        OPERATIONS.append(Operation(run, where, ours))
        return run

    return register


def has(*traits: str) -> Callable[[Architecture], bool]:
    """Architectures with all these traits."""
    return lambda a: set(traits) <= a.traits


def cases() -> Iterator[tuple[Operation, Method, Architecture]]:
    """Every operation with LoRA, the control, and with style adapters."""
    for each in OPERATIONS:
        for architecture in filter(each.where, ARCHITECTURES):
            for method in (STYLE,) if each.ours else (LORA, STYLE):
                yield each, method, architecture
