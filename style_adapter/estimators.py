"""Ways through discrete text: embeddings that a discriminator can read, with a gradient for the logits behind them.

| forward | backward | function |
| --- | --- | --- |
| the likeliest token | softmax | `functional.straight_through_embeddings` |
| a sampled token | softmax, noise and all | `gumbel_embeddings` |
| any token | softmax over the likeliest | `sampled_embeddings` |
| the mixture itself | softmax (over the likeliest) | `soft_embeddings` |

All take `logits` [tokens, vocab] and the frozen table of `embeddings` E [vocab, dim], which gets no gradient. Where the
judge is not differentiable at all, `losses.reinforce` needs rewards alone.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float, Int
from torch import Tensor

from .functional import straight_through_embeddings

FAKES = ("teacher_forced", "sampled")  # the logits at a target's own positions; a text written token by token
ESTIMATORS = ("straight_through", "gumbel", "soft", "sampled", "reinforce")
FOR_SAMPLED_TEXT = ("sampled", "soft", "reinforce")  # the others would show D another text than the written one


def gumbel_embeddings(
    logits: Float[Tensor, "tokens vocab"],
    embeddings: Float[Tensor, "vocab dim"],
    noise: Float[Tensor, "tokens vocab"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, "tokens dim"]:
    """y = E[argmax(a + g)] with dy/da = d(softmax((a + g) / temperature) @ E)/da.

    `a` = logits, `g` = standard Gumbel `noise` (`seeds.gumbel_tokens`), so the token is a sample from softmax(a) at
    any `temperature`, which shapes the gradient alone. The straight-through Gumbel-softmax estimator (Jang et al. 2016,
    arXiv 1611.01144, section 2.2), without the product with E that its mixture would cost.
    """
    return straight_through_embeddings(logits + noise, embeddings, temperature=temperature)


def soft_embeddings(
    logits: Float[Tensor, "tokens vocab"],
    embeddings: Float[Tensor, "vocab dim"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Float[Tensor, "tokens dim"]:
    """y = p @ E with `p = softmax(logits / temperature)`, over the `top_k` likeliest tokens or over all of them.

    No token is ever chosen: exact gradient, but embeddings that no text has. With 64 of 49,152 tokens the product is
    with 64 rows of E, gathered as they are summed: a [tokens, 64, dim] tensor never exists.

    Raises:
        ValueError: `top_k` below 2, where nothing could be learnt. One above the vocabulary means all of it.
    """
    table = embeddings.detach()
    if top_k is None:
        return _softmax(logits, temperature).to(table.dtype) @ table
    if top_k < 2:
        raise ValueError(f"top_k={top_k} must be >= 2, or no token could gain on another; 64 is a good choice")
    values, tokens = logits.topk(min(top_k, logits.shape[-1]))
    shares = _softmax(values, temperature).to(table.dtype)
    return F.embedding_bag(tokens, table, per_sample_weights=shares, mode="sum")


def sampled_embeddings(
    tokens: Int[Tensor, " tokens"],
    logits: Float[Tensor, "tokens vocab"],
    embeddings: Float[Tensor, "vocab dim"],
    *,
    temperature: float = 1.0,
    top_k: int | None = 64,
) -> Float[Tensor, "tokens dim"]:
    """y = E[token] with the gradient of `soft_embeddings`: of the mixture of the `top_k` likeliest tokens.

    `tokens` = what was written, sampled from these logits (`sample_tokens`) or before, with the logits of a second
    pass over the text. Straight-through (Bengio et al. 2013, arXiv 1308.3432) from a sample.
    """
    soft = soft_embeddings(logits, embeddings, temperature=temperature, top_k=top_k)
    return F.embedding(tokens, embeddings.detach()) + (soft - soft.detach())


@torch.no_grad()
def sample_tokens(
    logits: Float[Tensor, "tokens vocab"],
    noise: Float[Tensor, "tokens kept"],
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Int[Tensor, " tokens"]:
    """argmax_v(a_v / temperature + g_v) over the `kept` likeliest tokens: one draw from softmax(a / temperature).

    `a` = logits, `g` = standard Gumbel noise for as many tokens as may be drawn (top-k sampling), the likeliest first:
    64 numbers a token where the whole vocabulary would need 49,152. With `top_p` only the likeliest of them that have
    this probability together may be drawn. Temperature 0 takes the likeliest. The same row and noise give the same
    token in any batch.
    """
    values, tokens = logits.topk(noise.shape[-1])
    if temperature == 0:
        return tokens[:, 0]
    cool = values.float() / temperature
    if top_p < 1:
        shares = cool.softmax(dim=-1)
        cool = cool.masked_fill(shares.cumsum(dim=-1) - shares >= top_p, -torch.inf)
    best = (cool + noise.to(values.device)).argmax(dim=-1, keepdim=True)
    return tokens.gather(-1, best).squeeze(-1)


def _softmax(logits: Float[Tensor, "tokens kept"], temperature: float) -> Float[Tensor, "tokens kept"]:
    """softmax(logits / temperature) in fp32 at least."""
    return torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature, dim=-1)
