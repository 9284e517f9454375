"""Attention over packed documents, each by itself.

Shapes: B batch, H query heads, K key/value heads, T tokens, N documents of all rows, D features of queries and keys,
V features of values.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gptkit.nn.attention.backends.base import AttentionBackend
from gptkit.nn.attention.backends.sdpa import SdpaBackend, fused
from gptkit.nn.attention.mask import AttentionMask

if TYPE_CHECKING:
    from gptkit.nn.attention.softmax import SoftmaxAttention
    from gptkit.nn.forward import Forward

__all__ = ["VarlenBackend"]


class VarlenBackend(AttentionBackend):
    """One kernel call for all documents on CUDA in half precision; elsewhere one call of fused attention per document.

    The boundaries are read on the host, so a compiled model has a graph break there.
    """

    def __init__(self) -> None:
        self.sdpa = SdpaBackend()

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
        n_rows = q_BHTD.shape[0]
        packed = mask.documents_BT is not None or mask.left_padding_B is not None
        if not packed or mask.n_queries != mask.n_keys or mask.prefix_B is not None:
            return self.sdpa.attend(layer, q_BHTD, k_BKSD, v_BKSV, mask, forward, content, added)
        lengths = mask.cumulative_lengths(n_rows)
        kernel = _kernel() if q_BHTD.is_cuda and q_BHTD.dtype in (torch.float16, torch.bfloat16) else None
        if kernel is not None:
            q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTD, k_BKSD.to(q_BHTD.dtype), v_BKSV.to(q_BHTD.dtype)))
            back = -1 if mask.window is None else mask.window - 1
            out = kernel(
                q,
                k,
                v,
                lengths,
                lengths,
                mask.n_queries,
                mask.n_queries,
                scale=layer.scale,
                window_size=(back, 0),
                enable_gqa=q.shape[1] != k.shape[1],
            )
            return out.unflatten(0, (n_rows, -1)).transpose(1, 2)  # type: ignore[no-any-return]
        return _one_by_one(q_BHTD, k_BKSD, v_BKSV, lengths.tolist(), layer.scale, mask.window)


def _one_by_one(
    q_BHTD: Tensor, k_BKSD: Tensor, v_BKSV: Tensor, bounds: list[int], scale: float, window: int | None
) -> Tensor:
    n_tokens = q_BHTD.shape[2]
    rows: list[list[Tensor]] = [[] for _ in range(q_BHTD.shape[0])]
    for begin, end in itertools.pairwise(bounds):
        row, first = divmod(begin, n_tokens)
        length = end - begin
        q, k, v = (x[row : row + 1, :, first : first + length] for x in (q_BHTD, k_BKSD, v_BKSV))
        term = None
        if window is not None and window < length:
            term = AttentionMask("dense", length, length, q.device, window=window).additive(q.dtype)
        rows[row].append(fused(q, k, v, scale=scale, causal=term is None, term=term))
    return torch.cat([torch.cat(parts, dim=2) for parts in rows])


@functools.cache
def _kernel() -> Callable[..., Any] | None:
    """torch's varlen_attn, where it takes windows and grouped heads; else None."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    needed = {"scale", "window_size", "enable_gqa"}
    return varlen_attn if needed <= set(inspect.signature(varlen_attn).parameters) else None
