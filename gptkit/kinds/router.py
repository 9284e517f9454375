"""Kind `router`.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.forward import Forward
from gptkit.spec import Component, Fault

__all__ = ["Router", "RouterSpec"]


class Router(nn.Module, ABC):
    """The runtime part of a router."""

    @abstractmethod
    def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """For every token the experts it goes to, (N, K) whole numbers below X, all different, and their weights, (N, K).

        Weights have the dtype of `x_NE`. In training, a router adds its auxiliary losses to ``forward.losses``.

        Args:
            valid_N: False for padding, which is routed too but must not count in losses; None where all are real.
        """


class RouterSpec(Component):
    """Chooses for every token which experts see it, and how much each one counts.

    A token's experts depend on that token alone: neither on the rest of its row nor on the batch.
    """

    kind: ClassVar[str] = "router"

    def expert_faults(self, n_experts: int) -> Iterator[Fault]:
        """Why this router cannot serve so many experts: paths below this spec, and sentences with the remedy."""
        yield from ()

    @abstractmethod
    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        """The module, for vectors of context.d_model features."""
