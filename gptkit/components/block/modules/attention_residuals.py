"""Runtime module of block `attention-residuals`.

Shapes: B batch, T tokens, E model width, S sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.short_convolution import ShortConvolution
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.attention_residuals import AttentionResidualsSpec

__all__ = ["AttentionResiduals", "attend_to_sources"]


class AttentionResiduals(Block):
    """Runtime part of `AttentionResidualsSpec`.

    The carried value is a pair: the sources, and whether the last one is the sum of a group that is not complete.
    """

    def __init__(self, spec: AttentionResidualsSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.key = ("attention-residuals", spec.group)
        self.carries = (self.key,)
        self.grouped = spec.group is not None
        self.begins_group = spec.group is None or parts.index % spec.group == 0
        self.eps, self.score_scale, self.normalizes = spec.eps, spec.score_scale, spec.normalize_sources
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward_query = nn.Parameter(torch.zeros(context.d_model))
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.output_query = nn.Parameter(torch.zeros(context.d_model))
        self.attention_conv, self.feedforward_conv = (
            None
            if spec.output_conv is None
            else ShortConvolution(context.d_model, spec.output_conv, scaled=spec.output_conv_scaled)
            for _ in range(2)
        )
        self.dropout = spec.dropout

    def initial(self) -> dict[str, Initial]:
        return {"feedforward_query": "zeros", "output_query": "zeros"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        carried: tuple[tuple[Tensor, ...], bool] | None = forward.carried(self, self.key)
        # Without carried sources, this is the first block, or one after a block of another kind.
        sources, is_open = ((x_BTE,), False) if carried is None else carried
        is_open = is_open and not self.begins_group
        mixed_BTE = self.attention(self.attention_norm(x_BTE), forward)
        if self.attention_conv is not None:
            mixed_BTE = self.attention_conv(mixed_BTE, forward)
        sources = _with(sources, is_open, dropout(mixed_BTE, self.dropout, self.training))
        h_BTE = self.attend(sources, self.feedforward_query)
        fed_BTE = self.feedforward(self.feedforward_norm(h_BTE), forward)
        if self.feedforward_conv is not None:
            fed_BTE = self.feedforward_conv(fed_BTE, forward)
        sources = _with(sources, self.grouped, dropout(fed_BTE, self.dropout, self.training))
        forward.carry(self, self.key, (sources, self.grouped))
        return self.attend(sources, self.output_query)

    def attend(self, sources: tuple[Tensor, ...], query_E: Tensor) -> Tensor:
        """Return the weighted mean of the sources, (B, T, E)."""
        return attend_to_sources(sources, query_E, self.eps, scale=self.score_scale, normalize=self.normalizes)


def _with(sources: tuple[Tensor, ...], is_open: bool, branch_BTE: Tensor) -> tuple[Tensor, ...]:
    """Return the sources with a branch's output, which is added to the last one if that is open."""
    if is_open:
        return (*sources[:-1], sources[-1] + branch_BTE)
    return (*sources, branch_BTE)


def attend_to_sources(
    sources: Sequence[Tensor], query_E: Tensor, eps: float, *, scale: float = 1.0, normalize: bool = False
) -> Tensor:
    """Return the mean of the sources, each (B, T, E), weighted by softmax(scale · query · rms(source)).

    Weights are computed in fp32 or wider; the result has the dtype of the sources.

    Args:
        sources: at least one.
        query_E: the query.
        eps: added to the mean square in rms.
        scale: factor of the scores.
        normalize: return the mean of rms(source) in place of that of the sources.
    """
    dtype = sources[0].dtype
    wide = torch.promote_types(dtype, torch.float32)
    scores, factors = [], []
    with torch.autocast("cpu" if query_E.is_meta else query_E.device.type, enabled=False):
        query_E = query_E.to(wide)
        for source_BTE in sources:
            v_BTE = source_BTE.to(wide)
            # The norm is a factor of the score, so that no normalized copy of the source is stored.
            factors.append(torch.rsqrt(v_BTE.square().mean(dim=-1) + eps))
            scores.append((v_BTE @ query_E) * factors[-1])
    scores_BTS = torch.stack(scores, dim=-1)
    weights_BTS = (scores_BTS if scale == 1 else scores_BTS * scale).softmax(dim=-1)
    if normalize:
        weights_BTS = weights_BTS * torch.stack(factors, dim=-1)
    weights_BTS = weights_BTS.to(dtype)
    out_BTE = weights_BTS[..., :1] * sources[0]
    for index, source_BTE in enumerate(sources[1:], start=1):
        out_BTE = torch.addcmul(out_BTE, weights_BTS[..., index : index + 1], source_BTE)
    return out_BTE
