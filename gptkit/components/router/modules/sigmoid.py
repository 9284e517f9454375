"""The torch module of `SigmoidSpec`.

Shapes: N tokens, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gptkit.components.router.modules.scored import GroupedRouter
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward

if TYPE_CHECKING:
    from gptkit.components.router.sigmoid import SigmoidSpec

__all__ = ["Sigmoid"]


class Sigmoid(GroupedRouter):
    """Module of `SigmoidSpec`."""

    def __init__(self, spec: SigmoidSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__(spec, context, n_experts)
        self.selects_by = spec.selects_by

    def choose(self, logits_NX: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        scores_NX = logits_NX.sigmoid()
        experts_NK = self.best(logits_NX if self.selects_by == "logit" else scores_NX)
        return experts_NK, self.finish(scores_NX.gather(1, experts_NK), experts_NK)

    def shares(self, logits_NX: Tensor) -> Tensor:
        scores_NX = logits_NX.sigmoid()
        return scores_NX / (scores_NX.sum(dim=-1, keepdim=True) + 1e-20)
