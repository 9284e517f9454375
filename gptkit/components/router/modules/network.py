"""The torch module of `NetworkSpec`.

Shapes: N tokens, E model width, R width of the network, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.components.router.modules.scored import GroupedRouter
from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.ops.routing import expert_scores

if TYPE_CHECKING:
    from gptkit.components.router.network import NetworkSpec

__all__ = ["NetworkRouter"]


class NetworkRouter(GroupedRouter):
    """Module of `NetworkSpec`. The network is computed in fp32 or wider, as scores are.

    `previous_scale` is None in the first layer, which has no previous one.
    """

    def __init__(self, spec: NetworkSpec, context: BuildContext, n_experts: int) -> None:
        assert spec.d_hidden is not None
        super().__init__(spec, context.replace(d_model=spec.d_hidden), n_experts)
        self.score = spec.score
        self.down = nn.Linear(context.d_model, spec.d_hidden, bias=spec.hidden_bias)
        self.hidden = nn.ModuleList(
            nn.Linear(spec.d_hidden, spec.d_hidden, bias=spec.hidden_bias) for _ in range(spec.hidden_layers)
        )
        self.activation = spec.activation.build(context.replace(d_model=spec.d_hidden))
        self.key: Hashable = None
        layer = 0 if context.layer is None else context.layer.index
        if spec.reads_previous:
            # Routers of one layer are numbered, so that each reads the one in its place.
            keys: list[Hashable] = context.share(("network routers", layer), list)
            self.key = ("network-router", spec.d_hidden, len(keys))
            self.carries = (self.key,)
            keys.append(self.key)
        reads = spec.reads_previous and layer > 0
        self.previous_scale = nn.Parameter(torch.ones(spec.d_hidden)) if reads else None

    def initial(self) -> dict[str, Initial]:
        return super().initial() if self.previous_scale is None else {**super().initial(), "previous_scale": "ones"}

    def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r_NR = self._linear(self.down, x_NE.to(torch.promote_types(x_NE.dtype, torch.float32)))
        if self.key is not None:
            r_NR = self._with_previous(r_NR, forward)
        experts_NK, weights_NK = super().forward(r_NR, forward, valid_N)
        return experts_NK, weights_NK.to(x_NE.dtype)

    def logits(self, x_NE: Tensor) -> Tensor:
        for hidden in self.hidden:
            x_NE = self.activation(self._linear(cast("nn.Linear", hidden), x_NE))
        return super().logits(x_NE)

    def choose(self, logits_NX: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        scores_NX = expert_scores(logits_NX, self.score)
        experts_NK = self.best(scores_NX)
        return experts_NK, self.finish(scores_NX.gather(1, experts_NK), experts_NK)

    def shares(self, logits_NX: Tensor) -> Tensor:
        scores_NX = expert_scores(logits_NX, self.score)
        return scores_NX if self.score == "softmax" else scores_NX / (scores_NX.sum(dim=-1, keepdim=True) + 1e-20)

    def _with_previous(self, r_NR: Tensor, forward: Forward) -> Tensor:
        """Add the vectors of the previous layer's router, and let the sum accompany what the block returns."""
        if r_NR.shape[0] != forward.ids_BT.numel():
            raise GptkitError(
                f"a network router received {r_NR.shape[0]} vectors for {forward.ids_BT.numel()} token ids",
                hint="Use it in a layer of its own, not in an expert of another mixture, or set reads_previous: false.",
            )
        if not forward.in_block:
            return r_NR
        previous_NR: Tensor | None = forward.carried(self, self.key)
        if previous_NR is not None and self.previous_scale is not None:
            r_NR = r_NR + previous_NR * self.previous_scale.to(r_NR.dtype)
        forward.carry(self, self.key, r_NR)
        return r_NR

    @staticmethod
    def _linear(linear: nn.Linear, x_NR: Tensor) -> Tensor:
        bias = None if linear.bias is None else linear.bias.to(x_NR.dtype)
        with torch.autocast("cpu" if x_NR.is_meta else x_NR.device.type, enabled=False):
            return F.linear(x_NR, linear.weight.to(x_NR.dtype), bias)
