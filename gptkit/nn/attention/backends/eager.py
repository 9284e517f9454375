"""Attention step by step: softcaps, terms anywhere, mixing of heads, and the attention weights themselves.

Shapes: B batch, H query heads, K key/value heads, T queries, S keys, D features of queries and keys, V features of values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.nn.attention.backends.base import AttentionBackend
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.nn.attention.mask import AttentionMask
    from gptkit.nn.attention.softmax import SoftmaxAttention
    from gptkit.nn.forward import Forward

__all__ = ["EagerBackend"]


class EagerBackend(AttentionBackend):
    """The definition that the other backends are compared with."""

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
        # The softmax is in fp32 at least, whatever the inputs are in.
        dtype = torch.promote_types(q_BHTD.dtype, torch.float32)
        repeats = q_BHTD.shape[1] // k_BKSD.shape[1]
        if repeats > 1:
            k_BKSD, v_BKSV = k_BKSD.repeat_interleave(repeats, 1), v_BKSV.repeat_interleave(repeats, 1)
        scores_BHTS = (q_BHTD @ k_BKSD.transpose(-2, -1)) * layer.scale
        if content is not None:
            scores_BHTS = scores_BHTS + content
        if layer.softcap is not None:
            scores_BHTS = layer.softcap * torch.tanh(scores_BHTS / layer.softcap)
        if layer.mixes_scores:
            scores_BHTS = layer.mix_scores(scores_BHTS)
        scores_BHTS = scores_BHTS.to(dtype) + layer.additive_term(forward, mask, dtype)
        if added is not None:
            scores_BHTS = scores_BHTS + added.to(dtype)
        weights_BHTS = _softmax(scores_BHTS, layer.sink_logits(dtype, scores_BHTS.device)).to(v_BKSV.dtype)
        if layer.mixes_weights:
            weights_BHTS = layer.mix_weights(weights_BHTS)
        weights_BHTS = dropout(weights_BHTS, layer.dropout, layer.training)
        out_BHTV = weights_BHTS @ v_BKSV
        if layer.changes_values:
            positions = forward.key_positions(mask.key_offset, mask.n_keys)
            more = layer.position.value_bias(weights_BHTS, forward.query_positions, positions)
            out_BHTV = out_BHTV if more is None else out_BHTV + more
        forward.keep_weights(layer.layer, weights_BHTS)
        return out_BHTV


def _softmax(scores_BHTS: Tensor, sinks_H: Tensor | None) -> Tensor:
    if sinks_H is None:
        return torch.softmax(scores_BHTS, dim=-1)
    column = sinks_H.to(scores_BHTS.dtype).view(1, -1, 1, 1).expand(scores_BHTS.shape[0], -1, scores_BHTS.shape[2], 1)
    return torch.softmax(torch.cat((scores_BHTS, column), dim=-1), dim=-1)[..., :-1]
