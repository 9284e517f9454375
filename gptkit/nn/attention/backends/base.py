"""The runtime contract of kind `attention-backend`.

Shapes: B batch, H query heads, K key/value heads (H a multiple of K), T queries, S keys, D features of queries and keys,
V features of values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from gptkit.nn.attention.mask import AttentionMask
    from gptkit.nn.attention.softmax import SoftmaxAttention
    from gptkit.nn.forward import Forward

__all__ = ["AttentionBackend"]


class AttentionBackend(ABC):
    """Computation of softmax(mask + added + bias + softcap(scale · q kᵀ + content)) v for one layer."""

    @abstractmethod
    def attend(
        self,
        layer: SoftmaxAttention,
        q_BHTD: Tensor,
        k_BKSD: Tensor,
        v_BKSV: Tensor,
        mask: AttentionMask,
        forward: Forward,
        content: Tensor | None,
        added: Tensor | None,
    ) -> Tensor:
        """Attention of one call.

        Args:
            layer: has the constants (`scale`, `softcap`, `dropout`, `training`), and the terms that layers share:
                `sink_logits`, `additive_term` (mask and bias as a tensor), `score_mod` (the bias as a function).
            mask: which keys each query may attend.
            forward: this call's context.
            content: a term before the softcap, (B, H, T, S), or None.
            added: a term after the softcap, broadcastable to (B, H, T, S), or None.

        Returns:
            (B, H, T, V).
        """
