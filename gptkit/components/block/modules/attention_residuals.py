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
from gptkit.nn.parameters import ParameterOptions
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
        self.key_norm, self.value_norm = (
            parts.norm.build(context, dim=context.d_model) if spec.kv_inputs else None for _ in range(2)
        )
        self.attention = parts.attention.build(context.replace(kv_inputs=True) if spec.kv_inputs else context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        is_first = context.share((*self.key, "first"), lambda: parts.index) == parts.index
        is_last = parts.index >= context.n_layers - 1
        rows = (3, context.d_model) if spec.kv_inputs else (context.d_model,)
        self.attention_query = None if is_first else nn.Parameter(torch.zeros(rows))
        """That of queries; or those of queries, keys and values, (3, E)."""
        self.feedforward_query = nn.Parameter(torch.zeros(context.d_model))
        self.output_query = nn.Parameter(torch.zeros(context.d_model)) if is_last else None
        self.attention_conv, self.feedforward_conv = (
            None
            if spec.output_conv is None
            else ShortConvolution(context.d_model, spec.output_conv, scaled=spec.output_conv_scaled)
            for _ in range(2)
        )
        self.dropout = spec.dropout

    def initial(self) -> dict[str, Initial]:
        return {name: "zeros" for name, _ in self.named_parameters(recurse=False)}

    def parameter_options(self) -> dict[str, ParameterOptions]:
        # Vectors, also where three of them are in one parameter.
        return {} if self.attention_query is None else {"attention_query": ParameterOptions(hidden=False)}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        carried: tuple[tuple[Tensor, ...], bool] | None = forward.carried(self, self.key)
        # Without carried sources, this is the first block, or one after a block of another kind.
        sources, is_open = ((x_BTE,), False) if carried is None else carried
        is_open = is_open and not self.begins_group
        mixed_BTE = self._attention(x_BTE, sources, forward)
        if self.attention_conv is not None:
            mixed_BTE = self.attention_conv(mixed_BTE, forward)
        mixed_BTE = dropout(mixed_BTE, self.dropout, self.training)
        sources = _with(sources, is_open, mixed_BTE)
        fed_BTE = self.feedforward(self.feedforward_norm(self.attend(sources, self.feedforward_query)), forward)
        if self.feedforward_conv is not None:
            fed_BTE = self.feedforward_conv(fed_BTE, forward)
        fed_BTE = dropout(fed_BTE, self.dropout, self.training)
        sources = _with(sources, self.grouped, fed_BTE)
        forward.carry(self, self.key, (sources, self.grouped))
        return x_BTE + mixed_BTE + fed_BTE if self.output_query is None else self.attend(sources, self.output_query)

    def _attention(self, x_BTE: Tensor, sources: tuple[Tensor, ...], forward: Forward) -> Tensor:
        """Return attention's output for the norm of the mean of the sources, or for three such inputs."""
        if self.attention_query is None:
            h_BTE = k_BTE = v_BTE = x_BTE
        elif self.key_norm is None:
            h_BTE = self.attend(sources, self.attention_query)
        else:
            h_BTE, k_BTE, v_BTE = (self.attend(sources, query_E) for query_E in self.attention_query)
        out_BTE: Tensor
        if self.key_norm is None or self.value_norm is None:
            out_BTE = self.attention(self.attention_norm(h_BTE), forward)
            return out_BTE
        kv_BTE = (self.key_norm(k_BTE), self.value_norm(v_BTE))
        out_BTE = self.attention(self.attention_norm(h_BTE), forward, kv_BTE=kv_BTE)
        return out_BTE

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
