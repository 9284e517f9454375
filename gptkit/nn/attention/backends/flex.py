"""Torch's flex attention.

Shapes: B batch, H query heads, K key/value heads, T queries, S keys, D features of queries and keys, V features of values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.flex_attention import flex_attention

from gptkit.core.errors import GptkitError
from gptkit.nn.attention.backends.base import AttentionBackend
from gptkit.nn.attention.backends.eager import EagerBackend

if TYPE_CHECKING:
    from gptkit.nn.attention.mask import AttentionMask
    from gptkit.nn.attention.softmax import SoftmaxAttention
    from gptkit.nn.forward import Forward

__all__ = ["FlexBackend"]

# Asks for the logarithm of the softmax's denominator; torch has renamed the argument.
_WITH_LOG_SUM: dict[str, Any] = (
    {"return_aux": flex.AuxRequest(lse=True)} if hasattr(flex, "AuxRequest") else {"return_lse": True}
)


class FlexBackend(AttentionBackend):
    """Masks as blocks, softcap and bias as a score function.

    On the CPU a call inside torch.compile is computed by `eager`. With torch 2.13.0, inductor's CPU kernel returns wrong
    numbers where queries and keys are computed in the graph (rotated, for example) and the values are a view of a packed
    projection, so that their strides differ; and it cannot lower score functions with tensors that are computed in the
    graph. tests/nn/test_flex_on_the_cpu.py shows both, and fails when torch has fixed them. Outside of torch.compile, and
    on CUDA, torch's own implementation computes.
    """

    def __init__(self) -> None:
        self.eager = EagerBackend()

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
        assert content is None
        assert added is None
        on_cpu = q_BHTD.device.type == "cpu"
        if on_cpu and torch.is_grad_enabled() and (q_BHTD.requires_grad or k_BKSD.requires_grad or v_BKSV.requires_grad):
            raise GptkitError(
                "flex attention cannot be trained on the CPU: torch has no backward for it there",
                hint="Set model.attention_backend to auto, or train on CUDA.",
            )
        if on_cpu and torch.compiler.is_compiling():
            # See the docstring of the class.
            return self.eager.attend(layer, q_BHTD, k_BKSD, v_BKSV, mask, forward, content, added)
        uncompiled: Callable[..., Any] = flex_attention
        call = uncompiled if on_cpu or torch.compiler.is_compiling() else _compiled()
        out = call(
            q_BHTD,
            k_BKSD.to(q_BHTD.dtype),
            v_BKSV.to(q_BHTD.dtype),
            score_mod=_score_mod(layer, forward, mask),
            block_mask=None if mask.form == "none" else mask.block_mask(),
            scale=layer.scale,
            enable_gqa=q_BHTD.shape[1] != k_BKSD.shape[1],
            **({} if layer.sinks is None else _WITH_LOG_SUM),
        )
        if layer.sinks is None:
            return out  # type: ignore[no-any-return]
        out_BHTV, log_sum = out
        log_sum_BHT = log_sum if isinstance(log_sum, Tensor) else log_sum.lse
        # A sink adds exp(sink) to the softmax's denominator exp(log_sum), and nothing to the output.
        share_BHT = torch.sigmoid(log_sum_BHT - layer.sinks.to(log_sum_BHT.dtype)[:, None])
        return out_BHTV * share_BHT[..., None].to(out_BHTV.dtype)  # type: ignore[no-any-return]


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


def _score_mod(layer: SoftmaxAttention, forward: Forward, mask: AttentionMask) -> Callable[..., Tensor] | None:
    """Softcap, then bias; the scores come scaled."""
    softcap, bias = layer.softcap, layer.score_mod(forward, mask) if layer.biases else None
    if softcap is None:
        return bias
    cap: float = softcap

    def capped(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        score = cap * torch.tanh(score / cap)
        return score if bias is None else bias(score, row, head, query, key)

    return capped
