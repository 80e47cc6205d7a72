"""Pure maths of the style adapter: no state, no modules, no knowledge of PEFT.

Symbols, the same in every module: `A` [r, d_in] and `B` [d_out, r] are the low-rank factors that all styles
share, `g` [rows, r] is the gate of a style, `s` = alpha / r the scaling.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float, Int
from torch import Tensor

IGNORED = -100  # the target that cross entropy skips, as everywhere in torch


def style_gate(
    ids: Int[Tensor, "rows slots"], weights: Float[Tensor, "rows slots"], table: Float[Tensor, "styles r"]
) -> Float[Tensor, "rows r"]:
    """g = sum_m w_m * G[id_m]: the gate of a mixture of named styles.

    A gather and a weighted sum, never a product over all styles: the cost does not depend on their number.

    Args:
        ids: Rows of the table, padded with any valid row.
        weights: w_m, 0 where `ids` is padding.
        table: G, one gate a style.
    """
    return (weights.to(table.dtype)[:, None] @ F.embedding(ids, table)).squeeze(1)


def positive_shares(weights: Float[Tensor, "*rows styles"]) -> Float[Tensor, "*rows styles"]:
    """q_s = max(w_s, 0) / sum_s max(w_s, 0): a mixture's weights as a distribution; zero without a positive weight."""
    shares = weights.clamp(min=0)
    return shares / shares.sum(-1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)


def positions_of(mask: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """The place of each token among those of its row that `mask` keeps, from 0: padding before them moves none.

    >>> positions_of(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])).tolist()
    [[0, 0, 0, 1], [0, 1, 2, 2]]
    """
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)


def spread(gate: Float[Tensor, "rows r"], dims: int) -> Float[Tensor, "... r"]:
    """The gate viewed as [rows, 1, ..., 1, r], so that it broadcasts over an input of `dims` dimensions.

    An input of one dimension, a single vector, has no rows: its one gate is viewed as [r].
    """
    return gate.view(*(gate.shape[0], *(1,) * (dims - 2))[: dims - 1], gate.shape[1])


def gated_update(
    x: Float[Tensor, "*batch d_in"],
    a: Float[Tensor, "r d_in"],
    b: Float[Tensor, "d_out r"],
    gate: Float[Tensor, "rows r"],
) -> Float[Tensor, "*batch d_out"]:
    """B diag(g) A x, with the scaling s already folded into g (r numbers a row instead of d_out).

    The low-rank update of LoRA (Hu et al. 2021, arXiv 2106.09685, eq. 3) with a gate on the rank: `rows` is 1,
    one style for the whole batch, or the first size of x, one style a row.
    """
    middle = F.linear(x, a)  # [*batch, r]
    return F.linear(middle * spread(gate, x.dim()).to(middle.dtype), b)


class _GatedLinear(torch.autograd.Function):
    """h = W x + bias + B diag(g) A x in one node: W is frozen, the input is read where it lies, nothing is added twice.

    Plain modules would write W x and the update apart and add them, and the same again for the gradient of x: two more
    passes over arrays of [*batch, d_out] and [*batch, d_in], which is most of what a low rank costs.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, gate: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(h, A x): the second for backward alone."""
        middle = F.linear(x.flatten(0, -2), a)
        return _added(F.linear(x, weight, bias), _gated(middle, gate), b), middle

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keeps x, A x, the factors and g: d_in + r numbers a token, as LoRA without its copies."""
        x, weight, _, a, b, gate = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, weight, a, b, gate, output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, Tensor]:
        """With u = B^T dh: dB = dh (g A x)^T, dg = sum u (A x), dA = (g u) x^T, dx = W^T dh + A^T (g u)."""
        x, weight, a, b, gate, middle = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of this one: A x as a function of both
            middle = F.linear(x.flatten(0, -2), a)
        dh = grads[0].flatten(0, -2)
        upper = dh @ b
        lower = _gated(upper, gate)
        by_row = (upper * middle).view(gate.shape[0], -1, gate.shape[1])
        dx = _added(grads[0] @ weight, lower, a.T) if ctx.needs_input_grad[0] else None
        db = (_gated(middle, gate).T @ dh).T  # with the few rows first it takes two thirds of the time
        return dx, None, None, lower.T @ x.flatten(0, -2), db, by_row.sum(1)


def _gated(middle: Float[Tensor, "tokens r"], gate: Float[Tensor, "rows r"]) -> Float[Tensor, "tokens r"]:
    """Each of `rows` equal parts of the tokens times its gate."""
    return (middle.view(gate.shape[0], -1, gate.shape[1]) * gate[:, None]).view_as(middle)


def _added(
    h: Float[Tensor, "*batch d"], middle: Float[Tensor, "tokens r"], factor: Float[Tensor, "d r"]
) -> Float[Tensor, "*batch d"]:
    """`h`, which nobody else holds, plus factor @ middle, in place."""
    h.view(-1, h.shape[-1]).addmm_(middle, factor.T)
    return h


def gated_linear(
    x: Float[Tensor, "*batch d_in"],
    weight: Float[Tensor, "d_out d_in"],
    bias: Float[Tensor, " d_out"] | None,
    a: Float[Tensor, "r d_in"],
    b: Float[Tensor, "d_out r"],
    gate: Float[Tensor, "rows r"],
) -> Float[Tensor, "*batch d_out"]:
    """W x + bias + B diag(g) A x of a frozen W: the sum of `F.linear` and `gated_update`, faster than its parts.

    All of one dtype, x of at least two dimensions and not empty; `weight` and `bias` get no gradient.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, a, b, gate)):
        return _GatedLinear.apply(x, weight, bias, a, b, gate)[0]
    return _GatedLinear.forward(x, weight, bias, a, b, gate)[0]


def fixed_b(b: Float[Tensor, "d_out r"], gate: Float[Tensor, " r"], scaling: float) -> Float[Tensor, "d_out r"]:
    """s * B diag(g): with A, the plain LoRA that one fixed style is."""
    return b * (scaling * gate)


def delta_weight(
    a: Float[Tensor, "r d_in"], b: Float[Tensor, "d_out r"], gate: Float[Tensor, " r"], scaling: float
) -> Float[Tensor, "d_out d_in"]:
    """dW = s * B diag(g) A: what one fixed style adds to the base weight."""
    return fixed_b(b, gate, scaling) @ a


def stacked_delta_weight(
    a: Float[Tensor, "r_experts d_in"],
    b: Float[Tensor, "d_out r_experts"],
    gate: Float[Tensor, " r"],
    scaling: float,
) -> Float[Tensor, "experts d_out d_in"]:
    """dW_e = s * B_e diag(g) A_e for each expert e, of one gate that all share; of one expert it is `delta_weight`.

    Laid out as PEFT's LoRA does: A holds one expert after another, B one rank after another.
    """
    r = gate.shape[0]
    experts = a.shape[0] // r
    fixed = fixed_b(b, gate.repeat_interleave(experts), scaling)
    return torch.einsum("ore,eri->eoi", fixed.view(-1, r, experts), a.view(experts, r, -1))


def orthogonal_factors(r: int, d_in: int, d_out: int) -> tuple[Float[Tensor, "r d_in"], Float[Tensor, "d_out r"]]:
    """Random A and B, both non-zero, with B A = 0: an update that starts at zero with a gradient for both.

    Their rows and columns lie in two orthogonal halves of the space of rank r, as PEFT's `orthogonal` start of LoRA.

    Raises:
        ValueError: r is odd: the halves would be unequal.
    """
    if r % 2:
        raise ValueError(f"r={r} must be even for init_weights='orthogonal'; choose an even rank")
    q, _ = torch.linalg.qr(torch.randn(r, r))
    a = q[0::2].T @ torch.randn(r // 2, d_in) / 10
    b = torch.randn(d_out, r // 2) @ q[1::2] / 10
    return a, b


def principal_factors(
    weight: Float[Tensor, "d_out d_in"], r: int
) -> tuple[Float[Tensor, "r d_in"], Float[Tensor, "d_out r"]]:
    """A = sqrt(S_r) V_r^T and B = U_r sqrt(S_r) of W = U S V^T: B A is the best approximation of W of rank r.

    Raises:
        ValueError: W has fewer than r directions.
    """
    if r > min(weight.shape):
        raise ValueError(
            f"r={r} must be <= {min(weight.shape)}, the smaller size of the weight, for init_weights='pissa'; set a "
            "lower rank for this layer with rank_pattern, or leave it out of target_modules"
        )
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    root = s[:r].sqrt()
    return root[:, None] * vh[:r], u[:, :r] * root


class _StraightThrough(torch.autograd.Function):
    """Forward: the embedding of the most likely token. Backward: that of the soft mixture p @ E."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, embeddings: Tensor, temperature: float) -> Tensor:
        """y = E[argmax(logits)]; saves p = softmax(logits / temperature)."""
        ctx.save_for_backward(torch.softmax(logits.float() / temperature, dim=-1), embeddings)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        return F.embedding(logits.argmax(dim=-1), embeddings)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """dL/dlogits = p * (q - <p, q>) / temperature with q = dL/dy @ E^T."""
        probabilities, embeddings = ctx.saved_tensors
        toward = F.linear(grads[0].to(embeddings.dtype), embeddings).float()  # [tokens, vocab]
        centred = toward.sub_((probabilities * toward).sum(dim=-1, keepdim=True))
        return centred.mul_(probabilities).div_(ctx.temperature).to(ctx.dtype), None, None


def straight_through_embeddings(
    logits: Float[Tensor, "tokens vocab"], embeddings: Float[Tensor, "vocab dim"], *, temperature: float = 1.0
) -> Float[Tensor, "tokens dim"]:
    """y = E[argmax(logits)] with dy/dlogits = d(softmax(logits / temperature) @ E)/dlogits.

    The straight-through estimator (Bengio et al. 2013, arXiv 1308.3432) on the token embeddings: the
    discriminator reads real embeddings, the generator still gets a gradient. The soft mixture itself is never
    computed: its Jacobian needs only p, which spares one [tokens, vocab] x [vocab, dim] product. `embeddings`
    is frozen and gets no gradient.
    """
    return _StraightThrough.apply(logits, embeddings, temperature)
