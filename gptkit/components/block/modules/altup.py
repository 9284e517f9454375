"""Runtime module of block `altup`.

Shapes: B batch, T tokens, E model width, N streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.components.block.modules.per_layer_embedding import LayerEmbedding
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

if TYPE_CHECKING:
    from gptkit.components.block.altup import AltUpSpec

__all__ = ["AltUp"]


class AltUp(Block):
    """Runtime part of `AltUpSpec`. The first layer creates the streams, and the last one merges them."""

    def __init__(self, spec: AltUpSpec, context: BuildContext) -> None:
        super().__init__()
        parts, n, d_model = context.parts, spec.streams, context.d_model
        self.streams, self.clip = n, spec.clip
        self.key = ("altup", n)
        self.carries = (self.key,)
        self.router_norm = parts.norm.build(context, dim=d_model)
        self.router = context.linear(d_model, n, bias=False)
        self.router_factor = 1 / d_model
        self.prediction = nn.Linear(n, n * n, bias=False)
        self.correction = nn.Linear(n, n, bias=False)
        is_first = context.share((*self.key, "first"), lambda: parts.index) == parts.index
        self.expand = _maps(context, n - 1) if is_first else None
        self.merge = _maps(context, n - 1) if parts.index == context.n_layers - 1 else None
        self.block = spec.block.build(context)
        self.embedding = None if spec.d_embedding is None else LayerEmbedding(spec, context)
        scaled = spec.correct_scale and self.embedding is not None
        self.correct_scale = nn.Parameter(torch.ones(d_model)) if scaled else None

    def initial(self) -> dict[str, Initial]:
        # Zeros, so that the streams initially change by the block alone.
        initial: dict[str, Initial] = {"prediction.weight": "zeros", "correction.weight": "zeros"}
        if self.correct_scale is not None:
            initial["correct_scale"] = "ones"
        return initial

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        e_BTP = None if self.embedding is None else self.embedding.features(x_BTE, forward)
        streams_BTNE: Tensor | None = forward.carried(self, self.key)
        if streams_BTNE is None:  # the first block, or one after a block of another kind
            streams_BTNE = self._expanded(x_BTE)
        predicted_BTNE = self._predicted(streams_BTNE)
        active_BTE = predicted_BTNE[:, :, 0]
        y_BTE = self.block(active_BTE, forward)
        # Blocks may have returned the last tokens only.
        predicted_BTNE = predicted_BTNE[:, -y_BTE.shape[1] :]
        streams_BTNE = self._corrected(predicted_BTNE, y_BTE)
        if self.embedding is not None and e_BTP is not None:
            first_BTE = streams_BTNE[:, :, 0]
            scaled_BTE = first_BTE if self.correct_scale is None else first_BTE * self.correct_scale.to(first_BTE.dtype)
            added_BTE = self.embedding(scaled_BTE, e_BTP)
            streams_BTNE = torch.cat((streams_BTNE[:, :, :1], streams_BTNE[:, :, 1:] + added_BTE[:, :, None]), dim=2)
        if self.merge is not None:
            return self._merged(streams_BTNE)
        forward.carry(self, self.key, streams_BTNE)
        return streams_BTNE[:, :, 0]

    def _modalities(self, x_BTE: Tensor) -> Tensor:
        """Return the numbers from which the maps are computed, (B, T, N)."""
        routed_BTN: Tensor = self.router(self.router_norm(x_BTE) * self.router_factor)
        return torch.tanh(routed_BTN.float() if routed_BTN.dtype != torch.float64 else routed_BTN).to(x_BTE.dtype)

    def _mapped(self, linear: nn.Linear, modalities_BTN: Tensor) -> Tensor:
        """Apply a small map, whose weights are bounded in training."""
        weight: Tensor = linear.weight
        if self.clip is not None and self.training:
            weight = weight.clamp(-self.clip, self.clip)
        return F.linear(modalities_BTN, weight)

    def _predicted(self, streams_BTNE: Tensor) -> Tensor:
        maps_BTNN = self._mapped(self.prediction, self._modalities(streams_BTNE[:, :, 0]))
        shape = (*maps_BTNN.shape[:2], self.streams, self.streams)
        return streams_BTNE + maps_BTNN.view(shape) @ streams_BTNE

    def _corrected(self, predicted_BTNE: Tensor, y_BTE: Tensor) -> Tensor:
        factors_BTN = self._mapped(self.correction, self._modalities(y_BTE)) + 1
        innovation_BTE = y_BTE - predicted_BTNE[:, :, 0]
        return predicted_BTNE + factors_BTN[..., None] * innovation_BTE[:, :, None]

    def _expanded(self, x_BTE: Tensor) -> Tensor:
        if self.expand is None:
            return x_BTE[:, :, None].expand(-1, -1, self.streams, -1)
        return torch.stack([x_BTE, *(_resized(linear(x_BTE), x_BTE) for linear in self.expand)], dim=2)

    def _merged(self, streams_BTNE: Tensor) -> Tensor:
        assert self.merge is not None
        first_BTE, *others_BTE = streams_BTNE.unbind(dim=2)
        merged = [_resized(linear(each), first_BTE) for linear, each in zip(self.merge, others_BTE, strict=True)]
        return torch.stack([first_BTE, *merged]).mean(dim=0)


def _maps(context: BuildContext, count: int) -> nn.ModuleList:
    return nn.ModuleList(context.linear(context.d_model, context.d_model, bias=False) for _ in range(count))


def _resized(y_BTE: Tensor, x_BTE: Tensor) -> Tensor:
    """Return y with the root mean square of x."""
    target_BT1 = x_BTE.square().mean(dim=-1, keepdim=True).sqrt()
    return y_BTE * target_BT1 / y_BTE.square().mean(dim=-1, keepdim=True).clamp(min=1e-5).sqrt()
