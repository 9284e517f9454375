"""Sampler `adaptive-p`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AdaptiveP", "AdaptivePSpec"]

_WIDTH, _PEAK, _SHARPNESS = 0.3, 5.0, 10.0
"""The constants of llama.cpp: distance that counts as one, logit at the target, and slope of the decrease."""


class AdaptiveP(Sampler):
    """Runtime part of `AdaptivePSpec`; keeps the mean probability of the tokens sampled for each row."""

    def __init__(self, target: float, decay: float, batch: int) -> None:
        self.target, self.decay = target, decay
        # As if the target had been met so far.
        self.sums, self.weights = [target / (1 - decay)] * batch, [1 / (1 - decay)] * batch
        self._p_BV: Tensor | None = None

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        self._p_BV = logits_BV.softmax(dim=-1)
        means = [total / weight for total, weight in zip(self.sums, self.weights, strict=True)]
        goals = [[min(max(2 * self.target - mean, 0.0), 1.0)] for mean in means]
        distance_BV = (self._p_BV - torch.tensor(goals, device=logits_BV.device)).abs() / _WIDTH
        moved_BV = _PEAK - _SHARPNESS * distance_BV.square() / (1 + distance_BV)
        return moved_BV.masked_fill(logits_BV == -math.inf, -math.inf)

    def chosen(self, tokens: Sequence[int], log_probabilities: Sequence[float]) -> None:
        import torch

        assert self._p_BV is not None
        p = self._p_BV.gather(-1, torch.tensor(tokens, device=self._p_BV.device)[:, None])[:, 0].tolist()
        self.sums = [each + self.decay * total for each, total in zip(p, self.sums, strict=True)]
        self.weights = [1 + self.decay * weight for weight in self.weights]

    def reorder(self, rows: Sequence[int]) -> None:
        self.sums, self.weights = [self.sums[row] for row in rows], [self.weights[row] for row in rows]
        if self._p_BV is not None:
            self._p_BV = self._p_BV[list(rows)]


class AdaptivePSpec(SamplerSpec):
    """Prefer tokens whose probability is near a target, which follows the text so that the mean is met.

    Formula:
        d[v] = |P[v] − g| / 0.3,  P = softmax(logits),  g = 2 · target − m, limited to [0, 1]
        logits[v] ← 5 − 10 d[v]² / (1 + d[v])
        m: the mean of P[x] of the tokens x sampled so far, with weights decay^age; the target at first

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://github.com/ggml-org/llama.cpp/pull/17927

    Notes:
        Place it last. The probabilities of unlikely tokens are nearly alike, so place a `min-p` before it.
    """

    formula: ClassVar[str] = r"""
        d_v = \frac{|P_v - g|}{0.3} \qquad g = 2 \tau - m \qquad P = \operatorname{softmax}(z)
        z_v \leftarrow 5 - 10 \frac{d_v^2}{1 + d_v}
    """

    name: Literal["adaptive-p"] = "adaptive-p"
    target: float = Field(0.5, ge=0, le=1, description="Target of the mean probability of the sampled tokens.")
    decay: float = Field(
        0.9, ge=0, le=0.99, description="Weight of a token relative to the next; 0 considers only the last token."
    )

    def build(self, context: SamplerContext) -> AdaptiveP:
        return AdaptiveP(self.target, self.decay, context.batch)
