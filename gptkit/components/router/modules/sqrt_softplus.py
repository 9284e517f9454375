"""The torch module of `SqrtSoftplusSpec`.

Shapes: N tokens, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from torch import Tensor

from gptkit.components.router.modules.scored import GroupedRouter
from gptkit.nn.forward import Forward
from gptkit.ops.routing import expert_scores

__all__ = ["SqrtSoftplus"]


class SqrtSoftplus(GroupedRouter):
    """Module of `SqrtSoftplusSpec`."""

    def choose(self, logits_NX: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        scores_NX = expert_scores(logits_NX, "sqrt-softplus")
        experts_NK = self.best(scores_NX)
        return experts_NK, self.finish(scores_NX.gather(1, experts_NK), experts_NK)

    def shares(self, logits_NX: Tensor) -> Tensor:
        scores_NX = expert_scores(logits_NX, "sqrt-softplus")
        return scores_NX / (scores_NX.sum(dim=-1, keepdim=True) + 1e-20)
