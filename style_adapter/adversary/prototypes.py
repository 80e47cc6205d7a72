"""A memory of style features: what texts of each style look like on average."""

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Bool, Float
from torch import Tensor

from ..functional import positive_shares
from .numerics import check_positive, no_autocast


class StylePrototypes:
    """S*_s <- S*_s + rate * (mean_s - S*_s): a running mean of style features over the real texts of each style.

    `mean_s` = the weighted mean of all features that `update` took in since the last `commit`, over all
    processes. A style's first mean is taken whole, so no zero biases it. Not a module: DDP would broadcast buffers
    of rank 0 over what each process has gathered.

    Args:
        n_styles: Number of styles.
        dim: Width of their features.
        rate: Weight of the newest mean, in (0, 1].

    >>> prototypes = StylePrototypes(2, 1, rate=0.5)
    >>> prototypes.update(torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    >>> prototypes.commit()
    >>> prototypes(torch.tensor([[0.7, 0.0]])), prototypes.known(torch.eye(2))
    (tensor([[3.]]), tensor([ True, False]))
    """

    def __init__(self, n_styles: int, dim: int, *, rate: float = 0.1) -> None:
        """Start with no style known; tensors follow the device of the first features."""
        check_positive(n_styles=n_styles, dim=dim)
        if not 0 < rate <= 1:
            raise ValueError(f"rate={rate} must be > 0 and <= 1; 0.1 averages over about ten steps")
        self.rate = rate
        self._means = torch.zeros(n_styles, dim)
        self._seen = torch.zeros(n_styles, dtype=torch.bool)
        # Sums and masses in one tensor, so that one all-reduce carries both: [n_styles, dim + 1].
        self._pending = torch.zeros(n_styles, dim + 1)

    @torch.no_grad()
    def update(self, pooled: Float[Tensor, "batch dim"], style: Float[Tensor, "batch n_styles"]) -> None:
        """Add this process's real texts to the sums; nothing else changes before `commit`."""
        self.to(pooled.device)
        with no_autocast(pooled):
            mass = style.to(self._pending).clamp(min=0)
            self._pending += mass.T @ F.pad(pooled.to(self._pending), (0, 1), value=1.0)

    @torch.no_grad()
    def commit(self) -> None:
        """Move each style met since the last commit towards its mean; once an optimizer step, on every process."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self._pending)
        mass = self._pending[:, -1:]  # [n_styles, 1]
        # One text with NaN features would otherwise stay in the mean for good.
        met = (mass > 0) & self._pending.isfinite().all(-1, keepdim=True)
        mean = self._pending[:, :-1] / mass.where(met, 1.0)
        step = torch.where(self._seen[:, None], self.rate, 1.0)
        self._means = torch.where(met, self._means + step * (mean - self._means), self._means)
        self._seen = self._seen | met.squeeze(-1)
        self._pending = torch.zeros_like(self._pending)

    def forget_pending(self) -> None:
        """Drop the sums since the last `commit`."""
        self._pending = torch.zeros_like(self._pending)

    def __call__(self, style: Float[Tensor, "batch n_styles"]) -> Float[Tensor, "batch dim"]:
        """sum_s q_s S*_s with `q = max(w, 0) / sum_s max(w_s, 0)`; means something where `known(style)`."""
        self.to(style.device)
        with no_autocast(style):
            return positive_shares(style.to(self._means)) @ self._means

    def known(self, style: Float[Tensor, "batch n_styles"]) -> Bool[Tensor, " batch"]:
        """Whether every style of the row's mixture has been met; where not, the caller drops the term."""
        self.to(style.device)
        asked = style > 0
        return asked.any(-1) & (self._seen | ~asked).all(-1)

    def state_dict(self) -> dict[str, Tensor]:
        """The means and which styles were met. Sums since the last `commit` are left out: save between steps."""
        return {"means": self._means.clone(), "seen": self._seen.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave, and forget sums not committed."""
        given, own = tuple(state["means"].shape), tuple(self._means.shape)
        if given != own:
            raise ValueError(
                f"state['means'] of shape {given} must have shape {own} = (n_styles, dim); "
                "build StylePrototypes with the sizes the checkpoint was saved with"
            )
        self._means = state["means"].to(self._means, copy=True)
        self._seen = state["seen"].to(self._seen, copy=True)
        self._pending = torch.zeros_like(self._pending)

    def to(self, device: torch.device) -> None:
        """Move to `device`; free when already there. Features are followed to theirs anyway."""
        self._means, self._seen, self._pending = (t.to(device) for t in (self._means, self._seen, self._pending))
