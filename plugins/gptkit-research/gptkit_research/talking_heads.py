"""Attention `talking-heads`.

Shapes: B batch, H heads, T queries, S keys, D head size, E model width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit_research.heads import HeadsSpec

__all__ = ["TalkingHeadsAttention", "TalkingHeadsSpec"]


class TalkingHeadsSpec(HeadsSpec):
    """Talking-heads attention: scores are mixed across heads before the softmax, and weights after it.

    Formula:
        score_h = Σ_g P_score[h, g] q_g k_gᵀ / √d_head,  weight_h = Σ_g P_weight[h, g] softmax(score_g + bias + mask)
        y = W_o [weight_1 v_1 … weight_H v_H]
    Shapes:
        (B, T, d_model) -> (B, T, d_model); P_score, P_weight (n_heads, n_heads);
        cache: 2 · n_heads · d_head values per token
    Paper:
        https://arxiv.org/abs/2003.02436
    Notes:
        Both matrices are initialized near the identity. Only the eager backend supports the mixing of heads.
    """

    name: Literal["talking-heads"] = "talking-heads"

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures.of(context.parts.position, mixes_heads=True, dropout=self.dropout > 0)

    def build(self, context: BuildContext) -> TalkingHeadsAttention:
        return TalkingHeadsAttention(self, context)


class TalkingHeadsAttention(SoftmaxAttention):
    """Runtime part of `TalkingHeadsSpec`."""

    def __init__(self, spec: TalkingHeadsSpec, context: BuildContext) -> None:
        heads = spec.heads
        super().__init__(context, heads, scale=heads.d_head**-0.5, dropout=spec.dropout, window=spec.window)
        width = heads.n_heads * heads.d_head
        self.qkv = context.linear(context.d_model, 3 * width, bias=False)
        """Rows: queries, keys, values; head by head."""
        self.output = context.linear(width, context.d_model, bias=False)
        self.mix_score = nn.Parameter(torch.eye(heads.n_heads))
        self.mix_weight = nn.Parameter(torch.eye(heads.n_heads))

    def initial(self) -> dict[str, Initial]:
        return {"output.weight": "output", "mix_score": _near_identity, "mix_weight": _near_identity}

    def project(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
        packed = self.qkv(x_BTE).unflatten(-1, (3, self.heads.n_heads, self.heads.d_head))
        q_BHTD, k_BHTD, v_BHTD = packed.permute(2, 0, 3, 1, 4)
        return q_BHTD, k_BHTD, v_BHTD

    def combine(self, out_BHTD: Tensor, x_BTE: Tensor) -> Tensor:
        return self.output(out_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def mix_scores(self, scores_BHTS: Tensor) -> Tensor:
        return torch.einsum("hg,bgts->bhts", self.mix_score.to(scores_BHTS.dtype), scores_BHTS)

    def mix_weights(self, weights_BHTS: Tensor) -> Tensor:
        return torch.einsum("hg,bgts->bhts", self.mix_weight.to(weights_BHTS.dtype), weights_BHTS)


def _near_identity(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.eye(shape[0]) + 0.1 * torch.randn(shape, generator=generator)
