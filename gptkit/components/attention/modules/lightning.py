"""Runtime of `lightning`.

Shapes: B batch, T tokens, E model width, H heads, K features of queries and keys, V features of values, X features of all
heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive
from gptkit.ops.decayed_attention import decayed_attention, decayed_attention_step
from gptkit.ops.symbols import varies

if TYPE_CHECKING:
    from gptkit.components.attention.lightning import LightningSpec

__all__ = ["Lightning"]


class Lightning(Attention):
    """Runtime of `lightning`: computes chunks of tokens in training and for prompts, single tokens in decoding."""

    def __init__(self, spec: LightningSpec, context: BuildContext) -> None:
        super().__init__()
        heads = spec.head_shape()
        self.n_heads, self.d_head = heads.n_heads, heads.d_head
        self.slopes = spec.slopes(context)
        d_heads = heads.n_heads * heads.d_head
        self.qkv = context.linear(context.d_model, 3 * d_heads, bias=False)
        """Rows: all heads' queries, then keys, then values; head by head."""
        self.activation = spec.activation.build(context)
        self.norm = spec.norm.build(context, dim=d_heads)
        self.gate = context.linear(context.d_model, d_heads, bias=False) if spec.output_gate else None
        self.output = context.linear(d_heads, context.d_model, bias=False)

    def initial(self) -> dict[str, Initial]:
        return {"output.weight": "output"}

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        d_heads = self.n_heads * self.d_head
        return {
            "qkv.weight": consecutive(("query", "key", "value"), [d_heads] * 3),
            **({} if self.gate is None else {"gate.weight": {"gate": (slice(None),)}}),
            "output.weight": {"output": (slice(None),)},
        }

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        state = cast("RecurrentState | None", forward.state(self))
        (memory_BHKV,) = (None,) if state is None or state.tensors is None else state.tensors
        packed_BTX = self.activation(self.qkv(x_BTE))
        if forward.valid_BT is not None:
            # Padding adds zeros to an empty state, which therefore stays empty.
            packed_BTX = packed_BTX.masked_fill(~forward.valid_BT[..., None], 0)
        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        heads = torch.unflatten(packed_BTX.to(wide), -1, (3 * self.n_heads, self.d_head))
        q_BTHK, k_BTHK, v_BTHV = heads.chunk(3, dim=2)
        slopes_H = torch.tensor(self.slopes, dtype=wide, device=x_BTE.device)

        if memory_BHKV is None:
            memory_BHKV = v_BTHV.new_zeros(n_batch, self.n_heads, self.d_head, self.d_head)
        if not varies(n_tokens) and n_tokens == 1:
            out_BHV, memory_BHKV = decayed_attention_step(q_BTHK[:, 0], k_BTHK[:, 0], v_BTHV[:, 0], slopes_H, memory_BHKV)
            out_BTHV = out_BHV[:, None]
        else:
            segments = None if forward.documents_BT is None else (forward.positions == 0).cumsum(dim=1)
            out_BTHV, memory_BHKV = decayed_attention(q_BTHK, k_BTHK, v_BTHV, slopes_H, memory_BHKV, segments_BT=segments)
        if state is not None:
            state.update(n_tokens, memory_BHKV)
        out_BTX = self.norm(out_BTHV.flatten(2).to(x_BTE.dtype))
        if self.gate is not None:
            out_BTX = out_BTX * self.gate(x_BTE).sigmoid()
        return self.output(out_BTX)  # type: ignore[no-any-return]

    def new_state(self, allocation: Allocation) -> RecurrentState:
        wide = torch.promote_types(allocation.dtype, torch.float32)
        return allocation.recurrent(((self.n_heads, self.d_head, self.d_head), wide))
