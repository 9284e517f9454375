"""Kind `attention`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.core.errors import Problem
from gptkit.core.failing import MEANT, failure
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape

if TYPE_CHECKING:
    from gptkit.nn.attention.base import Attention

__all__ = ["AttentionSpec", "head_problems"]


class AttentionSpec(Component):
    """Mixes information across tokens: the one place where a token sees others.

    What must hold, for every position it accepts:
        causality: the output at a position depends on its own and earlier tokens of the same row and document only;
        batch independence: a row's output does not depend on the other rows, nor on padding;
        cache equivalence: prefill and single steps through a state give what one full call gives;
        windows count tokens, the current one included.

    It builds the relative position it is given (``context.parts.position``) for the head size that it rotates.

    Declared capabilities:
        accepts: the hooks of a position that it applies, of `rotate`, `widen`, `bias`, `content_bias`, `value_bias`.
        depends_on_place: a property, bool: with `position: none`, it still depends on where in the text tokens are.
    """

    kind: ClassVar[str] = "attention"
    runtime: ClassVar[str] = "gptkit.nn.attention.base:Attention"
    accepts: ClassVar[frozenset[str]] = frozenset()

    @property
    def depends_on_place(self) -> bool:
        """Whether the output for a token depends on its position even without a position component (chunks)."""
        return False

    def score_features(self, context: BuildContext) -> ScoreFeatures | None:
        """What the attention asks of a backend; None without a softmax of scores, or where only building it can say."""
        return None

    @abstractmethod
    def build(self, context: BuildContext) -> Attention:
        """The module, for context.d_model features."""


def head_problems(context: BuildContext, heads: HeadShape) -> Iterator[Problem]:
    """Why the layer's position cannot serve these heads, as problems of the attention."""
    position = context.parts.position
    try:
        messages = list(position.head_problems(heads))
    except MEANT:
        raise
    except Exception as error:
        yield Problem((), failure(position, "head_problems", error, context.registry))
        return
    for message in messages:
        yield Problem((), f"position {position.name!r} cannot use these heads: {message}")
