"""Mask patterns: restrictions of causal attention by the positions of query and key.

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
    """Restriction of the earlier tokens of its row and document that a token may attend, by the positions of the two.

    An attention passes its pattern to ``SoftmaxAttention(…, pattern=…)`` or ``forward.mask(…, pattern=…)``; all backends,
    caches, padded rows and packed documents apply it. A pattern can only exclude keys: causality, padding and document
    boundaries are not affected, and every token attends itself.

    Subclasses are frozen dataclasses, so that layers with equal patterns share one mask.
    """

    @abstractmethod
    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        """Return whether a token may attend another one, elementwise.

        Flex attention compiles this for single elements, so it must use arithmetic and comparisons of tensors only.

        Args:
            query: positions of queries: 0 for the first token of a row or document, negative for padding.
            key: positions of keys, broadcastable to `query`; later than the query in a bidirectional prefix only.

        Returns:
            Booleans, of the broadcast shape.
        """

    @property
    def reach(self) -> int | None:
        """Number of tokens that a query can attend, itself included; None for no limit. Caches discard older tokens."""
        return None

    def is_void(self, n_tokens: int) -> bool:
        """Return whether nothing is excluded among the first `n_tokens` positions, so that kernels need no mask."""
        return False


@dataclass(frozen=True)
class Chunks(MaskPattern):
    """Attention within chunks of fixed size (https://ai.meta.com/blog/llama-4-multimodal-intelligence/).

    Attributes:
        size: number of positions of a chunk; the first begins at position 0.
    """

    size: int

    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        return query // self.size == key // self.size

    @property
    def reach(self) -> int | None:
        return self.size

    def is_void(self, n_tokens: int) -> bool:
        return n_tokens <= self.size
