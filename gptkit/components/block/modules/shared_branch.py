"""Runtime modules of block `shared-branch`.

Shapes: B batch, T tokens, E model width, Y features of the branch's input (E or 2 E), X features of a projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.addition import TakesAddition
from gptkit.nn.block import Block
from gptkit.nn.embedding import EMBEDDED
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.shared_branch import SharedBranchSpec

__all__ = ["Adapter", "Branch", "SharedBranch"]


class Adapter(nn.Module):
    """Low-rank maps, one for each part of a projection: (B, T, Y) to (B, T, X)."""

    def __init__(self, context: BuildContext, d_in: int, rank: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.rank = rank
        self.down = context.linear(d_in, rank * len(widths), bias=False)
        self.up = nn.ModuleList(context.linear(rank, width, bias=False) for width in widths)

    def initial(self) -> dict[str, Initial]:
        return {f"up.{index}.weight": "zeros" for index in range(len(self.up))}

    def forward(self, x_BTY: Tensor) -> Tensor:
        narrow = self.down(x_BTY).split(self.rank, dim=-1)
        return torch.cat([up(each) for up, each in zip(self.up, narrow, strict=True)], dim=-1)


class Branch(nn.Module):
    """Attention, then a feed-forward, each after a norm, without shortcuts; the layers of a group call the same one."""

    def __init__(self, spec: SharedBranchSpec, context: BuildContext) -> None:
        super().__init__()
        norm, d_input = context.parts.norm, (2 if spec.embedding else 1) * context.d_model
        # Nothing else is shared with other layers: neither keys and values nor tables of positions.
        inner = context.replace(shared={})
        self.attention_norm = norm.build(inner, dim=d_input)
        self.attention = spec.attention.build(spec.inner_context("attention", inner))
        self.feedforward_norm = norm.build(inner, dim=context.d_model)
        self.feedforward = spec.feedforward.build(spec.inner_context("feedforward", inner))
        for part, rank in ((self.attention, spec.attention_rank), (self.feedforward, spec.feedforward_rank)):
            if rank is not None:
                cast("TakesAddition", part).has_addition = True

    def forward(
        self, x_BTY: Tensor, forward: Forward, attention_adapter: Adapter | None, feedforward_adapter: Adapter | None
    ) -> Tensor:
        """Map (B, T, Y) to (B, T, E), with the adapters of the layer that calls."""
        y_BTY = self.attention_norm(x_BTY)
        x_BTE = self.attention(y_BTY, forward, *_additions(attention_adapter, y_BTY))
        y_BTE = self.feedforward_norm(x_BTE)
        fed_BTE: Tensor = self.feedforward(y_BTE, forward, *_additions(feedforward_adapter, y_BTE))
        return fed_BTE


class SharedBranch(Block):
    """Runtime part of `SharedBranchSpec`. In a cache, the branch's attention has a state for each layer that calls it."""

    def __init__(self, spec: SharedBranchSpec, context: BuildContext) -> None:
        super().__init__()
        parts, d_model = context.parts, context.d_model
        self.reads = (EMBEDDED,) if spec.embedding else ()
        self.branch: Branch = context.share(spec.share_key(context), lambda: Branch(spec, context))
        self.attention_adapter = _adapter(
            context, spec.attention_rank, (1 + spec.embedding) * d_model, self.branch.attention
        )
        self.feedforward_adapter = _adapter(context, spec.feedforward_rank, d_model, self.branch.feedforward)
        self.output = context.linear(d_model, d_model, bias=False)
        self.attention_norm = parts.norm.build(context, dim=d_model)
        self.attention = parts.attention.build(context)
        self.dropout = spec.dropout

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_BTY = x_BTE
        if self.reads:
            # Earlier blocks may have returned the last tokens only.
            embedded_BTE = forward.read(self, EMBEDDED)[:, -x_BTE.shape[1] :]
            x_BTY = torch.cat((x_BTE, embedded_BTE), dim=-1)
        h_BTE = self.output(self.branch(x_BTY, forward, self.attention_adapter, self.feedforward_adapter))
        mixed_BTE = self.attention(self.attention_norm(x_BTE + h_BTE), forward)
        return x_BTE + dropout(mixed_BTE, self.dropout, self.training)


def _adapter(context: BuildContext, rank: int | None, d_in: int, part: Any) -> Adapter | None:
    return None if rank is None else Adapter(context, d_in, rank, part.addition_widths)


def _additions(adapter: Adapter | None, x: Tensor) -> tuple[Tensor, ...]:
    return () if adapter is None else (adapter(x),)
