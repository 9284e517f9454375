"""Mask patterns: rules of two positions that restrict causal attention further.

Shapes: B batch, T queries, S keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # specs name their patterns, and load without torch
    from torch import Tensor

__all__ = ["Chunks", "MaskPattern"]


class MaskPattern(ABC):
    """Which of the earlier tokens of its row and document a token may attend, by the positions of the two.

    An attention declares its pattern, ``SoftmaxAttention(…, pattern=…)`` or ``forward.mask(…, pattern=…)``; all backends,
    caches, padded rows and packed documents follow. Causality, padding and documents are not its subject: a pattern can only
    exclude keys, and every token attends itself.

    Subclasses are frozen dataclasses: layers with equal patterns share one mask.
    """

    @abstractmethod
    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether a token may attend another one, elementwise.

        Flex attention compiles this for single elements, so it uses arithmetic and comparisons of tensors only.

        Args:
            query: positions of queries: 0 for the first token of a row or document, negative for padding.
            key: positions of keys, broadcastable to `query`; later than the query in a bidirectional prefix only.

        Returns:
            Truth values, of the shape of both together.
        """

    @property
    def reach(self) -> int | None:
        """How many tokens back a query can see, the current one included; None for all. Caches discard older tokens."""
        return None

    def is_void(self, n_tokens: int) -> bool:
        """Whether nothing is excluded among the first `n_tokens` positions; then kernels need no mask."""
        return False


@dataclass(frozen=True)
class Chunks(MaskPattern):
    """Attend within one's own chunk only (https://ai.meta.com/blog/llama-4-multimodal-intelligence/).

    Attributes:
        size: positions of a chunk; the first begins at position 0.
    """

    size: int

    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        return query // self.size == key // self.size

    @property
    def reach(self) -> int | None:
        return self.size

    def is_void(self, n_tokens: int) -> bool:
        return n_tokens <= self.size
