"""The torch module of `TopKSoftmaxSpec`.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gptkit.components.router.modules.scored import ScoredRouter
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward

if TYPE_CHECKING:
    from gptkit.components.router.top_k_softmax import TopKSoftmaxSpec

__all__ = ["TopKSoftmax"]


class TopKSoftmax(ScoredRouter):
    """Module of `TopKSoftmaxSpec`."""

    def __init__(self, spec: TopKSoftmaxSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__(spec, context, n_experts)
        self.k = spec.k

    def choose(self, logits_NX: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        best_NK, experts_NK = logits_NX.topk(self.k, dim=-1)
        return experts_NK, best_NK.softmax(dim=-1)
