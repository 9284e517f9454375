"""Runtime modules of block `gated-hyper-connections`.

Shapes: B batch, T tokens, E model width, N streams, X = N · E features of all streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.each_head import EachHead
from gptkit.nn.forward import Forward
from gptkit.nn.streams import StreamBlock
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.gated_hyper_connections import GatedHyperConnectionsSpec

__all__ = ["GatedHyperConnections", "StreamGates"]


class GatedHyperConnections(StreamBlock):
    """Runtime part of `GatedHyperConnectionsSpec`. `collapse` is None in layers that another one follows."""

    def __init__(self, spec: GatedHyperConnectionsSpec, context: BuildContext) -> None:
        super().__init__("gated-hyper-connections", spec.streams)
        parts = context.parts
        self.attention_gates = StreamGates(spec, context)
        self.attention = parts.attention.build(context)
        self.feedforward_gates = StreamGates(spec, context)
        self.feedforward = parts.feedforward.build(context)
        last = parts.index >= context.n_layers - 1
        self.collapse = StreamGates(spec, context, writes=False) if last else None
        self.dropout = spec.dropout

    def run(self, streams_BTNE: Tensor, forward: Forward) -> Tensor:
        h_BTE, write_BTN = self.attention_gates(streams_BTNE)
        streams_BTNE = self._written(streams_BTNE, self.attention(h_BTE, forward), write_BTN)
        h_BTE, write_BTN = self.feedforward_gates(streams_BTNE)
        streams_BTNE = self._written(streams_BTNE, self.feedforward(h_BTE, forward), write_BTN)
        forward.carry(self, self.key, streams_BTNE)
        y_BTE: Tensor = streams_BTNE.mean(dim=2) if self.collapse is None else self.collapse(streams_BTNE)[0]
        return y_BTE

    def _written(self, streams_BTNE: Tensor, branch_BTE: Tensor, write_BTN: Tensor) -> Tensor:
        """Return the streams with the output of a branch, in their dtype."""
        dtype = streams_BTNE.dtype
        branch_BTE = dropout(branch_BTE, self.dropout, self.training).to(dtype)
        return torch.addcmul(streams_BTNE, write_BTN.to(dtype)[..., None], branch_BTE[:, :, None])


class StreamGates(nn.Module):
    """Norms of the streams, gates by which a branch reads them, and weights by which its output is added to them.

    Args:
        spec: the block.
        context: the build context.
        writes: whether it has the weights of the output.
    """

    def __init__(self, spec: GatedHyperConnectionsSpec, context: BuildContext, *, writes: bool = True) -> None:
        super().__init__()
        self.streams, self.write_scale = spec.streams, spec.write_scale
        n_features = spec.streams * context.d_model
        self.norm = EachHead(context.parts.norm.build(context, dim=context.d_model), spec.streams)
        self.down = context.linear(n_features, spec.rank, bias=False)
        self.up = context.linear(spec.rank, n_features, bias=False)
        self.write = nn.Linear(n_features, spec.streams, bias=False) if writes else None

    def forward(self, streams_BTNE: Tensor) -> tuple[Tensor, Tensor]:
        """Return the branch's input, (B, T, E), and the weights of its output, (B, T, N), 0 without such."""
        normed_BTNE: Tensor = self.norm(streams_BTNE)
        normed_BTX = normed_BTNE.flatten(2)
        gates_BTX = torch.sigmoid(self.up(F.silu(self.down(normed_BTX) / self.streams)))
        h_BTE = (gates_BTX.view_as(normed_BTNE) * normed_BTNE).mean(dim=2)
        if self.write is None:
            return h_BTE, h_BTE.new_zeros(())
        return h_BTE, self.write_scale * torch.sigmoid(self.write(normed_BTX) / self.streams)
