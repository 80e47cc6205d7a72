"""The discriminator's side of the game: features from the frozen backbone, a judge of them, a memory of real ones.

`hidden_after` gives the features, `StyleDiscriminator` judges them, `judge_detached` lends the judgement to the
generator, `StylePrototypes` remembers what real texts of each style look like.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.hooks import RemovableHandle

from .functional import positive_shares


@dataclass(frozen=True)
class Judgement:
    """What a discriminator says of a batch of texts.

    Attributes:
        realness: A logit, positive for a real text of the style asked for.
        style_logits: Which style the text has, whatever was asked for.
        pooled: The style features phi, which the prototypes are means of.
    """

    realness: Float[Tensor, " batch"]
    style_logits: Float[Tensor, "batch n_styles"]
    pooled: Float[Tensor, "batch dim"]


class StyleDiscriminator(nn.Module):
    """realness = v.h + b + <sum_s w_s E_s, h> and `style_logits = U h + c` with `h = MLP(phi)`.

    `phi = sum_t softmax_t(q.x_t / sqrt(dim)) x_t` over the unpadded positions, `x` = features after layer norm
    without weights, `w` = the style's weights. The projection discriminator of Miyato & Koyama 2018 (arXiv
    1802.05637), section 3, eqs. 3-5: a style costs one row `E_s`, however many there are. `q` starts at 0, so
    phi starts as the mean over positions. Everything is computed in the weights' own precision (fp32), also
    inside autocast: R1 differentiates twice here.

    Args:
        dim: Width of the features.
        n_styles: Number of styles.
        width: Width of h.
        dropout: Inside the MLP.
        spectral_norm: Divide each weight on the way to realness by its largest singular value (Miyato et al. 2018,
            arXiv 1802.05957, eq. 8).
    """

    def __init__(
        self, dim: int, n_styles: int, *, width: int = 256, dropout: float = 0.0, spectral_norm: bool = False
    ) -> None:
        """Build the head; its random start follows torch's global generator."""
        super().__init__()
        _check_positive(dim=dim, n_styles=n_styles, width=width)
        bounded: Callable[[nn.Module], nn.Module] = parametrizations.spectral_norm if spectral_norm else nn.Identity()
        # Layer norm undoes any scale of the weight before it, so a bound on that weight would bound nothing.
        norm = nn.Identity() if spectral_norm else nn.LayerNorm(width)
        # torch's start for a Linear looks at the inputs: with 2 styles <E_s, h> would drown v.h.
        styles = nn.Linear(n_styles, width, bias=False)
        nn.init.normal_(styles.weight, std=width**-0.5)
        self.query = nn.Parameter(torch.zeros(dim))
        enter, mix = bounded(nn.Linear(dim, width)), bounded(nn.Linear(width, width))
        self.body = nn.Sequential(enter, norm, nn.GELU(), nn.Dropout(dropout), mix, nn.GELU())
        self.realness = bounded(nn.Linear(width, 1))
        self.styles = bounded(styles)
        self.classifier = nn.Linear(width, n_styles)

    def forward(
        self,
        features: Float[Tensor, "batch seq dim"],
        mask: Bool[Tensor, "batch seq"] | Int[Tensor, "batch seq"],
        style: Float[Tensor, "batch n_styles"],
    ) -> Judgement:
        """Judge each row against the `style` asked for; `mask` is 0 at padding, which changes nothing."""
        dtype = self.query.dtype
        with _no_autocast(features):
            pooled = self.pool(features.to(dtype), mask.bool())
            hidden = self.body(pooled)  # [batch, width]
            projection = (self.styles(style.to(dtype)) * hidden).sum(-1)  # <sum_s w_s E_s, h>
            realness = self.realness(hidden).squeeze(-1) + projection
            return Judgement(realness, self.classifier(hidden), pooled)

    def pool(
        self, features: Float[Tensor, "batch seq dim"], mask: Bool[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch dim"]:
        """`phi = sum_t softmax_t(q.x_t / sqrt(dim)) x_t`, where `x = layer_norm(features)` and padding weighs 0."""
        dim = features.shape[-1]
        # Padding may hold NaN (rows that attend to nothing), and 0 * NaN is NaN.
        x = F.layer_norm(features.masked_fill(~mask[..., None], 0.0), (dim,))
        # The least finite number, not -inf: a row that is padding throughout then stays finite.
        relevance = (x @ self.query * dim**-0.5).masked_fill(~mask, torch.finfo(x.dtype).min)
        return torch.einsum("bs,bsd->bd", relevance.softmax(-1), x)


def judge_detached(
    discriminator: nn.Module,
    features: Float[Tensor, "batch seq dim"],
    mask: Bool[Tensor, "batch seq"] | Int[Tensor, "batch seq"],
    style: Float[Tensor, "batch n_styles"],
) -> Judgement:
    """D_sg(psi)(features): the judgement with D's weights psi held constant, so that gradient reaches only features.

    The generator's side of the game. Its mirror, D's side, is `discriminator(features.detach(), mask, style)`.
    """
    learning = [weight for weight in discriminator.parameters() if weight.requires_grad]
    try:
        for weight in learning:
            weight.requires_grad_(False)
        return discriminator(features, mask, style)
    finally:
        for weight in learning:
            weight.requires_grad_(True)


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
        _check_positive(n_styles=n_styles, dim=dim)
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
        with _no_autocast(pooled):
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

    def __call__(self, style: Float[Tensor, "batch n_styles"]) -> Float[Tensor, "batch dim"]:
        """sum_s q_s S*_s with `q = max(w, 0) / sum_s max(w_s, 0)`; means something where `known(style)`."""
        self.to(style.device)
        with _no_autocast(style):
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


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """The model's transformer blocks: its longest `nn.ModuleList` of one class, the first such where two are as long.

    Lists inside a list are passed over, or the 64 experts of a layer would win over 24 layers. In an
    encoder-decoder with sides of equal depth this gives the encoder.
    """
    uniform = [blocks for blocks in _outer_lists(model) if len({type(block) for block in blocks}) == 1]
    if not uniform:
        raise ValueError(
            f"model={type(model).__name__} must hold an nn.ModuleList of blocks of one class, and has none; "
            "pass the list of blocks to hidden_after yourself"
        )
    return max(uniform, key=len)


def hidden_after(
    model: nn.Module, blocks: nn.ModuleList, depth: int, /, **inputs: object
) -> Float[Tensor, "batch seq dim"]:
    """h_depth = block_depth(... block_1(embed(inputs))): the hidden states after the first `depth` blocks.

    Runs `model(**inputs)` and leaves it on entering the next block, so later blocks and the output layer cost
    nothing. Equals `output_hidden_states[depth]` of a full run; at `depth == len(blocks)` it is what leaves the
    last block, before any final norm. Autograd goes through it. Pass `use_cache=False` to a decoder.
    """
    if not 0 <= depth <= len(blocks) or not len(blocks):
        raise ValueError(f"depth={depth} must be between 0 and the number of blocks, {len(blocks)} (at least 1)")
    handle = _stop_at(blocks, depth)
    try:
        model(**inputs)
    except _Reached as reached:
        return reached.hidden
    finally:
        handle.remove()
    raise ValueError(
        f"blocks must be run by model={type(model).__name__}, which never came to depth={depth}; "
        "pass blocks of this model, and turn layer drop off"
    )


class _Reached(Exception):  # noqa: N818 - a way out, not an error
    """Carries the hidden states out of a model that is left half way."""

    def __init__(self, hidden: Tensor) -> None:
        """Keep `hidden`, graph and all."""
        super().__init__()
        self.hidden = hidden


def _stop_at(blocks: nn.ModuleList, depth: int) -> RemovableHandle:
    """The hook that leaves the model after `depth` blocks."""
    if depth == len(blocks):
        return blocks[-1].register_forward_hook(_leave_with_output)
    # Before any other pre-hook: those gather a sharded block's weights, and the hooks that let go would never run.
    return blocks[depth].register_forward_pre_hook(_leave_with_input, with_kwargs=True, prepend=True)


def _leave_with_input(block: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """Forward pre-hook: the hidden states are the first argument, or the one called `hidden_states`."""
    _leave(block, args[0] if args else kwargs.get("hidden_states"))


def _leave_with_output(block: nn.Module, args: tuple[object, ...], output: object) -> None:
    """Forward hook: the hidden states are the output, or the first of several."""
    _leave(block, output[0] if isinstance(output, tuple) else output)


def _leave(block: nn.Module, hidden: object) -> NoReturn:
    """Leave the model with `hidden`, once sure that it is a tensor."""
    if not isinstance(hidden, Tensor):
        raise TypeError(
            f"hidden states of type {type(hidden).__name__} at {type(block).__name__} must be a tensor, its first "
            "argument or output; pass another list of blocks"
        )
    raise _Reached(hidden)


def _outer_lists(module: nn.Module) -> Iterator[nn.ModuleList]:
    """Each `nn.ModuleList` that is in no other one, in module order."""
    if isinstance(module, nn.ModuleList):
        yield module
        return
    for child in module.children():
        yield from _outer_lists(child)


def _no_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which autocast lowers nothing on this tensor's device."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def _check_positive(**sizes: int) -> None:
    """Refuse a size below 1, by name."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be >= 1; give the {name} of the backbone or the style bank")
