"""What a game remembers from step to step: means of features and rewards by style, and old fakes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..adversary import StylePrototypes
from ..replay import ReplayBuffer


class GameMemory:
    """Running means by style, and a sample of old fakes; not a module: DDP would broadcast its tensors.

    Attributes:
        prototypes: S*, the mean features of real texts.
        fakes: The mean features of fakes, for the matching of means.
        baseline: The mean reward of a fake, for the score function.
        replay: Old fakes; None for a game without them.
    """

    def __init__(self, n_styles: int, dim: int, *, rate: float = 0.1, replay: ReplayBuffer | None = None) -> None:
        """Nothing is known yet."""
        self.prototypes = StylePrototypes(n_styles, dim, rate=rate)
        self.fakes = StylePrototypes(n_styles, dim, rate=rate)
        self.baseline = StylePrototypes(n_styles, 1, rate=rate)
        self.replay = replay
        self._written: list[tuple[int, list[int], Tensor]] = []

    def note_fakes(
        self,
        row_ids: Int[Tensor, " rows"],
        texts: Sequence[Tensor],
        style: Float[Tensor, "rows n_styles"],
        counts: Bool[Tensor, " rows"],
    ) -> None:
        """Keeps this step's fakes for the buffer, which takes them in at `commit`."""
        if self.replay is not None:
            styles = style.detach().cpu()
            chosen = counts.nonzero()[:, 0].tolist()
            self._written += [(int(row_ids[i]), texts[i].tolist(), styles[i]) for i in chosen]

    def commit(self) -> None:
        """Once an optimizer step, on every process: means move, and old fakes grow by the new ones of all processes."""
        for means in (self.prototypes, self.fakes, self.baseline):
            means.commit()
        if self.replay is not None:
            # by row id, so that any split into processes and batches fills the same buffer
            written = sorted((w for own in _of_all_processes(self._written) for w in own), key=lambda w: w[0])
            self._written = []
            if written:
                _, texts, styles = zip(*written, strict=True)
                self.replay.add(texts, torch.stack(styles))

    def forget_step(self) -> None:
        """Drops what the present step has brought so far: a step that is skipped must leave nothing behind."""
        for means in (self.prototypes, self.fakes, self.baseline):
            means.forget_pending()
        self._written = []

    def to(self, device: torch.device) -> None:
        """Moves the means to `device`."""
        for means in (self.prototypes, self.fakes, self.baseline):
            means.to(device)

    def state_dict(self) -> dict[str, Tensor]:
        """All of it, flat; what the present step has not committed is left out."""
        parts = {"prototypes": self.prototypes, "fakes": self.fakes, "baseline": self.baseline}
        if self.replay is not None:
            parts["replay"] = self.replay  # type: ignore[assignment]  # another kind of state
        return {f"{part}.{name}": tensor for part, held in parts.items() for name, tensor in held.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state_dict` gave; parts that the state has not stay as they are."""
        parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in state.items():
            part, _, key = name.partition(".")
            parts[part][key] = tensor
        for part, held in parts.items():
            if getattr(self, part) is not None:
                getattr(self, part).load_state_dict(held)


def _of_all_processes(own: list[tuple[int, list[int], Tensor]]) -> list[list[tuple[int, list[int], Tensor]]]:
    """The fakes of each process."""
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()):
        return [own]
    gathered: list[list[tuple[int, list[int], Tensor]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, own)
    return gathered
