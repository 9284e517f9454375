"""Runtime of `expert-heads`.

Shapes: B batch, T tokens, N = B · T, K experts chosen for a token, M = N · K rows, sorted by expert, J key/value heads, H =
J · K heads, D head size, X = J · D features of an expert's heads, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive
from gptkit.nn.stacked import StackedLinear
from gptkit.ops.grouped import group_rows, reorder

if TYPE_CHECKING:
    from gptkit.components.attention.expert_heads import ExpertHeadsSpec

__all__ = ["ExpertHeadsAttention"]


class ExpertHeadsAttention(SoftmaxAttention):
    """Runtime of `expert-heads`: the heads of all chosen experts in one call of the backend."""

    def __init__(self, spec: ExpertHeadsSpec, context: BuildContext) -> None:
        heads = spec.head_shape()
        super().__init__(context, heads, scale=heads.d_head**-0.5, dropout=spec.dropout, window=spec.window)
        self.n_experts, d_heads = spec.n_experts, heads.n_kv_heads * heads.d_head
        self.router = spec.router.build(context, n_experts=spec.n_experts)
        self.query = StackedLinear(spec.n_experts, context.d_model, d_heads, bias=False)
        self.kv = context.linear(context.d_model, 2 * d_heads, bias=False)
        """Rows: keys, then values, head by head."""
        self.output = StackedLinear(spec.n_experts, d_heads, context.d_model, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(context.d_model)) if spec.output_bias else None

    def initial(self) -> dict[str, Initial]:
        return {"output.weight": "output", **({} if self.output_bias is None else {"output_bias": "zeros"})}

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        return {"kv.weight": consecutive(("key", "value"), [self.kv.out_features // 2] * 2)}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        n_heads, d_head = self.heads.n_kv_heads, self.heads.d_head
        x_NE, valid_BT = x_BTE.flatten(0, 1), forward.counted_BT
        experts_NK, weights_NK = self.router(x_NE, forward, None if valid_BT is None else valid_BT.flatten())
        n_chosen = experts_NK.shape[1]
        groups = group_rows(experts_NK, self.n_experts)
        x_ME = reorder(x_NE[:, None].expand(-1, n_chosen, -1).flatten(0, 1), groups.order_M, groups.back_M)
        q_MX = reorder(self.query(x_ME, groups), groups.back_M, groups.order_M)
        q_BTKJD = q_MX.view(n_batch, n_tokens, n_chosen, n_heads, d_head)
        # The heads of all experts with the same keys are next to each other, as the backends group them.
        q_BHTD = q_BTKJD.permute(0, 3, 2, 1, 4).flatten(1, 2)
        k_BJTD, v_BJTD = (
            torch.unflatten(part, -1, (n_heads, d_head)).transpose(1, 2) for part in self.kv(x_BTE).chunk(2, dim=-1)
        )
        out_BHTD = self.attend(q_BHTD, k_BJTD, v_BJTD, forward)
        out_BTKJD = torch.unflatten(out_BHTD, 1, (n_heads, n_chosen)).permute(0, 3, 2, 1, 4)
        out_MX = reorder(out_BTKJD.reshape(-1, n_heads * d_head), groups.order_M, groups.back_M)
        y_ME = reorder(self.output(out_MX, groups), groups.back_M, groups.order_M)
        y_BTE: Tensor = (y_ME.view(*experts_NK.shape, -1) * weights_NK[..., None]).sum(dim=1).to(x_BTE.dtype).view_as(x_BTE)
        return y_BTE if self.output_bias is None else y_BTE + self.output_bias
