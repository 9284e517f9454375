"""Sampler `mirostat`. Shapes: B batch, V vocabulary, M most likely tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.mirostat_v2 import MirostatV2
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Mirostat", "MirostatSpec"]


class Mirostat(MirostatV2):
    """Runtime part of `MirostatSpec`; keeps the maximum surprisal of each row."""

    def __init__(self, tau: float, eta: float, m: int, batch: int) -> None:
        super().__init__(tau, eta, batch)
        self.m = m

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        vocab_size = logits_BV.shape[-1]
        best_BM = logits_BV.topk(min(self.m, vocab_size), dim=-1).values.tolist()
        counts = [_count(best, mu, vocab_size) for best, mu in zip(best_BM, self.mu, strict=True)]
        largest = min(max(counts), vocab_size)
        sorted_BK = logits_BV.topk(largest, dim=-1).values
        last_B1 = torch.tensor([[min(count, largest) - 1] for count in counts], device=logits_BV.device)
        return logits_BV.masked_fill(logits_BV < sorted_BK.gather(-1, last_B1), -math.inf)


def _count(best: Sequence[float], mu: float, vocab_size: int) -> int:
    """Return k for one row, whose most likely tokens have the logits `best`, in descending order."""
    logits = [logit for logit in best if logit > -math.inf]
    if len(logits) < 2:
        return 1
    # Least squares of the slope s of a Zipf distribution, P[i] ∝ i^−s. Differences of logits are those of ln P.
    steps = [math.log((i + 2) / (i + 1)) for i in range(len(logits) - 1)]
    drops = [left - right for left, right in itertools.pairwise(logits)]
    slope = sum(t * b for t, b in zip(steps, drops, strict=True)) / sum(t * t for t in steps)
    epsilon, log_size = slope - 1, math.log(vocab_size)
    ratio = 1 / log_size if abs(epsilon) < 1e-9 else epsilon / -math.expm1(-epsilon * log_size)
    log_k = (math.log(ratio) + mu * math.log(2)) / max(slope, 1e-9)
    return max(1, math.floor(math.exp(min(max(log_k, 0.0), log_size + 1))))


class MirostatSpec(SamplerSpec):
    """Mirostat 1: top-k with a k that follows the text so that its mean surprisal is tau bits.

    Formula:
        s = Σ tᵢ bᵢ / Σ tᵢ²,  tᵢ = ln((i + 1) / i),  bᵢ = ln(P[i] / P[i + 1])  over the m most likely tokens i = 1, 2, …
        k = ((ε 2^μ) / (1 − V^−ε))^(1 / s),  ε = s − 1;  keep the ⌊k⌋ most likely tokens, at least one;  μ = 2 τ at first
        μ ← μ − η (−log₂ Q[x] − τ) after each sampled token x, Q the distribution that it was drawn from

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/2007.14966

    Notes:
        It assumes that the probabilities follow Zipf's law; `mirostat-v2` does not, and is simpler. Place it last, after a
        temperature; it replaces top-k and top-p.
    """

    formula: ClassVar[str] = r"""
        s = \frac{\sum_i t_i b_i}{\sum_i t_i^2} \qquad t_i = \ln\frac{i+1}{i} \qquad
        b_i = \ln\frac{P_i}{P_{i+1}}
        k = \left(\frac{\epsilon\, 2^\mu}{1 - V^{-\epsilon}}\right)^{1/s} \qquad \epsilon = s - 1
        \mu \leftarrow \mu - \eta (-\log_2 Q_x - \tau)
    """

    name: Literal["mirostat"] = "mirostat"
    tau: float = Field(5.0, gt=0, le=100, description="Target of the mean surprisal of a token, in bits.")
    eta: float = Field(0.1, ge=0, le=10, description="Learning rate of the maximum surprisal.")
    m: int = Field(100, ge=2, description="Number of most likely tokens that the slope is estimated from.")

    def build(self, context: SamplerContext) -> Mirostat:
        return Mirostat(self.tau, self.eta, self.m, context.batch)
