"""Kind `attention`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from gptkit.nn.attention.base import Attention

__all__ = ["AttentionSpec"]


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
    runtime: ClassVar[str] = "gptkit.nn.attention.base:Attention"
    accepts: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def build(self, context: BuildContext) -> Attention:
        """The module, for context.d_model features."""
