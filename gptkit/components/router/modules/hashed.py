"""The torch module of `HashSpec`.

Shapes: N tokens, E model width, X experts, K experts chosen for a token, V token ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.components.router.modules.scored import ScoredRouter
from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward
from gptkit.ops.routing import expert_scores, hashed_experts

if TYPE_CHECKING:
    from gptkit.components.router.hashed import HashSpec

__all__ = ["HashRouter"]


class HashRouter(ScoredRouter):
    """Module of `HashSpec`."""

    def __init__(self, spec: HashSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__(spec, context, n_experts)
        if spec.table and not context.vocab_size:
            raise GptkitError(
                "a hash router with a table needs the number of token ids, which is not known here",
                hint="Remove `table`, or build the model for a vocabulary.",
            )
        self.k, self.score, self.renormalize, self.scale = spec.k, spec.score, spec.renormalize, spec.scale
        self.n_experts = n_experts
        self.layer = 0 if context.layer is None else context.layer.index
        self.index_limits = {"table": n_experts} if spec.table else {}
        self.table: Tensor | None
        """Experts of each token id, (V, K), stored with the weights; None where they are computed."""
        self.register_buffer("table", self._experts(torch.arange(context.vocab_size)) if spec.table else None)

    def _experts(self, ids_N: Tensor) -> Tensor:
        return hashed_experts(ids_N, self.n_experts, self.k, self.layer)

    def choose(self, logits_NX: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        ids_N = forward.ids_BT.flatten()
        if ids_N.shape[0] != logits_NX.shape[0]:
            raise GptkitError(
                f"a hash router received {logits_NX.shape[0]} vectors for {ids_N.shape[0]} token ids",
                hint="Use it in a layer of its own, not in an expert of another mixture.",
            )
        experts_NK = self._experts(ids_N) if self.table is None else self.table[ids_N]
        weights_NK = expert_scores(logits_NX, self.score).gather(1, experts_NK)
        if self.renormalize:
            weights_NK = weights_NK / (weights_NK.sum(dim=-1, keepdim=True) + 1e-20)
        if self.scale != 1:
            weights_NK = weights_NK * self.scale
        return experts_NK, weights_NK
