"""torch's MultiheadAttention: its input projections are one parameter, and its `out_proj` is never called."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float
from torch import Tensor, nn

from ..config import StyleAdapterConfig
from ..functional import gated_update
from .layer import StandIn
from .linear import StyleLinear


class StyleOutputProjection(StyleLinear):
    """The output projection inside an attention, which merges it; `merge_adapter` reaches it once more on its own."""

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Merges the adapters that are not merged yet."""
        if set(adapter_names or self.active_adapters) - set(self.merged_adapters):
            super().merge(safe_merge, adapter_names)

    def unmerge(self) -> None:
        """Takes the merges out, if there are any."""
        if self.merged:
            super().unmerge()


class StyleMultiheadAttention(StandIn):
    """[q; k; v] = [W_q q; W_k k; W_v v] + s * B diag(g) A [q; k; v], and `out_proj` adapted as a linear layer.

    A [r, d] is shared by query, key and value, B [3 d, r] has a part for each, as in PEFT's LoRA. That one merges its
    update before each call, which one style a row forbids. Here the projections are computed first, and torch's
    attention gets them with identities in their place: exact, for the price of four more products of d x d.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: StyleAdapterConfig, **kwargs: Any) -> None:
        """Wraps the attention, and inside it the output projection."""
        super().__init__(base_layer, adapter_name, config, **kwargs)
        kwargs["key"] = f"{kwargs['key']}.out_proj"
        attention = self.get_base_layer()
        out = StyleOutputProjection(attention.out_proj, adapter_name, config, **kwargs)  # type: ignore[arg-type]
        attention.out_proj = out

    def update_layer(self, adapter_name: str, config: StyleAdapterConfig, **kwargs: Any) -> None:
        """Adds the adapter here and on the output projection."""
        super().update_layer(adapter_name, config, **kwargs)
        out = self._output_projection()
        if isinstance(out, StyleOutputProjection):
            out.update_layer(adapter_name, config, **kwargs)

    def _output_projection(self) -> Any:
        """The output projection inside the attention: adapted, but for the moment in which this layer is made."""
        return self.get_base_layer().out_proj

    def _make_factors(self, r: int) -> tuple[nn.Module, nn.Module]:
        """A and B of the input projections."""
        return nn.Linear(self.in_features, r, bias=False), nn.Linear(r, self.out_features, bias=False)

    def get_base_weight(self) -> Tensor:
        """The input projections [3 d, d]."""
        return self.get_base_layer().in_proj_weight.data  # type: ignore[return-value]

    def set_base_weight(self, weight_data: Tensor) -> None:
        """Replaces the input projections."""
        self.get_base_layer().in_proj_weight.data = weight_data

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Merges here and into the output projection, which `merge_adapter` also reaches on its own."""
        super().merge(safe_merge, adapter_names)
        self._output_projection().merge(safe_merge, adapter_names)

    def unmerge(self) -> None:
        """Takes the merges out again, of the output projection too."""
        super().unmerge()
        self._output_projection().unmerge()

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """The plain attention again, with the style merged if wanted."""
        if merge:
            self.merge(safe_merge, adapter_names)
        attention: Any = self.get_base_layer()
        attention.out_proj = attention.out_proj.get_base_layer()
        return attention

    def forward(  # type: ignore[override]  # three inputs and two outputs
        self,
        query: Float[Tensor, "... d"],
        key: Float[Tensor, "*source d"],
        value: Float[Tensor, "*source d"],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's own result, (output, weights or None), with adapted projections."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged or next(self.running(query.device), None) is None:
            return self.base_layer(query, key, value, *args, **kwargs)
        return self._attend([query, key, value], *args, **kwargs)

    def _attend(
        self,
        inputs: list[Tensor],
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Projects, attends with identities for projections, projects out."""
        attention: Any = self.get_base_layer()
        turned = inputs[0].dim() == 3 and not attention.batch_first  # [length, batch, d]
        rows_first = [x.transpose(0, 1) if turned else x for x in inputs]
        projected = self._project(rows_first)
        if inputs[0].dim() == 3:
            projected = [x.transpose(0, 1) for x in projected]  # as torch's function wants them
        eye = torch.eye(attention.embed_dim, device=inputs[0].device, dtype=projected[0].dtype)
        q, k, v = projected
        mixed, weights = F.multi_head_attention_forward(
            q,
            k,
            v,
            attention.embed_dim,
            attention.num_heads,
            None,
            None,
            attention.bias_k,
            attention.bias_v,
            attention.add_zero_attn,
            attention.dropout,
            eye,
            None,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=True,
            q_proj_weight=eye,
            k_proj_weight=eye,
            v_proj_weight=eye,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        if inputs[0].dim() == 3:
            mixed = mixed.transpose(0, 1)
        output = attention.out_proj(mixed)
        return (output.transpose(0, 1) if turned else output), weights

    def _project(self, inputs: list[Float[Tensor, "..."]]) -> list[Tensor]:
        """Query, key and value with their part of W and of each update; inputs [batch, length, d] or [length, d]."""
        attention: Any = self.get_base_layer()
        biases = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        weights = attention.in_proj_weight.chunk(3)
        projected = [F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]
        batch = inputs[0].shape[0] if inputs[0].dim() == 3 else 1
        for adapter, code in self.running(inputs[0].device):
            gate, a = self._scaled_gate(adapter, code, batch), self._weight("A", adapter)
            for i, b in enumerate(self._weight("B", adapter).chunk(3)):
                x = self._table("dropout")[adapter](self._cast_to(adapter, inputs[i]))
                projected[i] = projected[i] + gated_update(x, a, b, gate).to(projected[i].dtype)
        return projected
