"""Kind `feedforward`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from gptkit.nn.feedforward import FeedForward

__all__ = ["FeedForwardSpec"]


class FeedForwardSpec(Component):
    """What a block applies to every token by itself.

    The output at a position depends on the input at that position only (and on token ids and losses through
    `forward`, for components that say so). A feed-forward may contain feed-forwards (experts).
    """

    kind: ClassVar[str] = "feedforward"
    runtime: ClassVar[str] = "gptkit.nn.feedforward:FeedForward"

    @abstractmethod
    def build(self, context: BuildContext) -> FeedForward:
        """The module, for context.d_model features."""
