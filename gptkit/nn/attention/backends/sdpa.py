"""Torch's fused attention.

Shapes: B batch, H query heads, K key/value heads, G queries per key/value head, T queries, S keys, D features of queries and
keys, V features of values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.nn.attention.backends.base import AttentionBackend
from gptkit.ops.causal_attention import causal_attention, suits
from gptkit.ops.symbols import varies

if TYPE_CHECKING:
    from gptkit.nn.attention.mask import AttentionMask
    from gptkit.nn.attention.softmax import SoftmaxAttention
    from gptkit.nn.forward import Forward

__all__ = ["SdpaBackend", "fused"]

FEW_QUERIES = 16
"""Queries up to which attention is traced as plain products: those of one decode step."""


class SdpaBackend(AttentionBackend):
    """Masks as a flag where they are plain, else one tensor with mask, bias and other terms.

    Args:
        blocks: train with the plain causal mask by `causal_attention` where that is faster (on the CPU).
    """

    def __init__(self, *, blocks: bool = True) -> None:
        self.blocks = blocks

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
        term = None
        sinks_H = layer.sink_logits(q_BHTD.dtype, q_BHTD.device)
        if layer.biases or mask.form == "dense" or content is not None or added is not None or sinks_H is not None:
            term = layer.additive_term(forward, mask, q_BHTD.dtype)
            # Without a softcap in between, a term before it and a term after it are one sum.
            for more in (content, added):
                if more is not None:
                    term = term + more.to(term.dtype)
            if sinks_H is not None:
                # A key of zeros whose score is the sink's logit and whose value is zero is just such a sink.
                shape = (term.shape[0], q_BHTD.shape[1], term.shape[2], -1)
                column = sinks_H.to(term.dtype).view(1, -1, 1, 1).expand(shape[0], -1, shape[2], 1)
                term = torch.cat((column, term.expand(shape)), dim=-1)
                k_BKSD, v_BKSV = F.pad(k_BKSD, (0, 0, 1, 0)), F.pad(v_BKSV, (0, 0, 1, 0))
        dropout = layer.dropout if layer.training else 0.0
        causal = term is None and mask.form == "causal"
        if causal and self.blocks and suits(q_BHTD, k_BKSD, v_BKSV):
            return causal_attention(q_BHTD, k_BKSD, v_BKSV, scale=layer.scale, dropout=dropout)
        return fused(q_BHTD, k_BKSD, v_BKSV, scale=layer.scale, causal=causal, term=term, dropout=dropout)


def fused(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSV: Tensor,
    *,
    scale: float,
    causal: bool = False,
    term: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """One call of torch's scaled_dot_product_attention.

    Args:
        scale: factor of the dot products.
        causal: mask the upper triangle (T = S); then `term` is None.
        term: what is added to the scores, (1 or B, 1 or H, T, S); None for nothing.
        dropout: probability with which a weight is dropped.

    Returns:
        (B, H, T, V).
    """
    n_batch, n_heads, n_queries, d_key = q_BHTD.shape
    n_kv_heads = k_BKSD.shape[1]
    # A number of queries that varies (a program of torch.export) takes the general call, which is right for any number.
    many = varies(n_queries)
    few = not many and n_queries <= FEW_QUERIES and not causal
    if few and torch.compiler.is_exporting() and q_BHTD.device.type == "cpu" and not dropout:
        return few_queries(q_BHTD, k_BKSD, v_BKSV, scale=scale, term=term)
    grouped = n_heads != n_kv_heads
    if grouped and not many and n_queries == 1 and (term is None or term.shape[1] == 1):
        # The heads of a group are so many queries on the same keys: nothing needs to be repeated.
        q_BKGD = q_BHTD.reshape(n_batch, n_kv_heads, n_heads // n_kv_heads, d_key)
        out = F.scaled_dot_product_attention(q_BKGD, k_BKSD, v_BKSV, attn_mask=term, dropout_p=dropout, scale=scale)
        return out.reshape(n_batch, n_heads, 1, v_BKSV.shape[-1])
    d_value, more = v_BKSV.shape[-1], d_key - v_BKSV.shape[-1]
    if more and not many and n_queries > FEW_QUERIES and not dropout and _runs_eagerly_on_a_cpu(q_BHTD):
        # torch's tiled kernel on a CPU requires values of the keys' size; features of zeros change nothing.
        q_BHTD, k_BKSD = (F.pad(x, (0, max(0, -more))) for x in (q_BHTD, k_BKSD))
        v_BKSV = F.pad(v_BKSV, (0, max(0, more)))
    out = F.scaled_dot_product_attention(
        q_BHTD, k_BKSD, v_BKSV, attn_mask=term, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
    )
    return out[..., :d_value] if more else out


def _runs_eagerly_on_a_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def few_queries(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSV: Tensor, *, scale: float, term: Tensor | None) -> Tensor:
    """Attention of few queries in plain products and sums, in fp32, for compiled decode steps on a CPU.

    Inductor fuses these into loops that read keys and values once; torch's CPU kernel takes several times as long for one
    query in bf16, most of all with many heads.

    Args:
        scale, term: as for `fused`.

    Returns:
        (B, H, T, V).
    """
    n_batch, n_heads, n_queries, d_key = q_BHTD.shape
    n_kv_heads, dtype = k_BKSD.shape[1], torch.promote_types(q_BHTD.dtype, torch.float32)
    n_group = n_heads // n_kv_heads
    q_BKGTD = (q_BHTD.to(dtype) * scale).view(n_batch, n_kv_heads, n_group, n_queries, d_key)
    scores_BKGTS = (q_BKGTD[:, :, :, :, None] * k_BKSD.to(dtype)[:, :, None, None]).sum(-1)
    if term is not None:
        heads = (1, 1) if term.shape[1] == 1 else (n_kv_heads, n_group)
        scores_BKGTS = scores_BKGTS + term.to(dtype).view(term.shape[0], *heads, *term.shape[2:])
    weights_BKGTS = scores_BKGTS.softmax(-1)
    out_BKGTV = (weights_BKGTS[..., None] * v_BKSV.to(dtype)[:, :, None, None]).sum(-2)
    return out_BKGTV.view(n_batch, n_heads, n_queries, -1).to(v_BKSV.dtype)
