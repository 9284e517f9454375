"""Kind `attention`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.forward import Forward
from gptkit.kinds.state import Stateful
from gptkit.spec import Component

__all__ = ["Attention", "AttentionSpec"]


class Attention(nn.Module, Stateful, ABC):
    """The runtime part of an attention (or of any other mixer of tokens)."""

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """(B, T, d_model) to (B, T, d_model).

        Masks come from ``forward.mask``, memory from ``forward.state(self)``.

        Where ``forward.weights`` is not None, an attention that has weights puts those that it used there, (B, H, T, S),
        under its layer's index: finite, and zero wherever the mask forbids. They need not add up to 1, nor be positive (a
        sigmoid attention's do not add up). One without weights (a recurrence) puts nothing there.
        """


class AttentionSpec(Component):
    """Mixes information across tokens: the one place where a token sees others.

    What must hold, for every position it accepts:
        causality: the output at a position depends on its own and earlier tokens of the same row and document only;
        batch independence: a row's output does not depend on the other rows, nor on padding;
        cache equivalence: prefill and single steps through a state give what one full call gives;
        windows count tokens, the current one included.

    It builds the relative position it is given (``context.parts.position``) for the head size that it rotates.

    Declared capabilities:
        accepts: the hooks of a position that it applies, of `rotate`, `bias`, `content_bias`, `value_bias`.
    """

    kind: ClassVar[str] = "attention"
    accepts: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def build(self, context: BuildContext) -> Attention:
        """The module, for context.d_model features."""
