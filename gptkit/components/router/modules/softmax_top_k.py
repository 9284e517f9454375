"""The torch module of `SoftmaxTopKSpec`.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from torch import Tensor

from gptkit.components.router.modules.scored import GroupedRouter
from gptkit.nn.forward import Forward

__all__ = ["SoftmaxTopK"]


class SoftmaxTopK(GroupedRouter):
    """Module of `SoftmaxTopKSpec`."""

    def choose(self, logits_NX: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        shares_NX = logits_NX.softmax(dim=-1)
        experts_NK = self.best(shares_NX)
        return experts_NK, self.finish(shares_NX.gather(1, experts_NK), experts_NK)
