"""Sampler `mirostat-v2`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.cutoff import keep_above
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MirostatV2", "MirostatV2Spec"]


class MirostatV2(Sampler):
    """Runtime part of `MirostatV2Spec`; keeps the maximum surprisal of each row."""

    def __init__(self, tau: float, eta: float, batch: int) -> None:
        self.tau, self.eta = tau, eta
        self.mu = [2 * tau] * batch
        """Maximum surprisal of each row, in bits."""

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        mu_B1 = torch.tensor(self.mu, device=logits_BV.device)[:, None]
        return keep_above(logits_BV, -logits_BV.log_softmax(dim=-1) <= mu_B1 * math.log(2))

    def chosen(self, tokens: Sequence[int], log_probabilities: Sequence[float]) -> None:
        surprisals = [-log_p / math.log(2) for log_p in log_probabilities]
        self.mu = [mu - self.eta * (bits - self.tau) for mu, bits in zip(self.mu, surprisals, strict=True)]

    def reorder(self, rows: Sequence[int]) -> None:
        self.mu = [self.mu[row] for row in rows]


class MirostatV2Spec(SamplerSpec):
    """Mirostat 2: keep the tokens up to a surprisal, which follows the text so that its mean surprisal is tau bits.

    Formula:
        keep v  ⇔  −log₂ P[v] ≤ μ,  P = softmax(logits);  μ = 2 τ at first
        μ ← μ − η (−log₂ Q[x] − τ) after each sampled token x, Q the distribution that it was drawn from

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/2007.14966

    Notes:
        The most likely token is always kept. Place it last, after a temperature; it replaces top-k and top-p.
    """

    formula: ClassVar[str] = r"""
        \text{keep } v \iff -\log_2 P_v \le \mu
        \mu \leftarrow \mu - \eta (-\log_2 Q_x - \tau)
    """

    anonymous: ClassVar[bool] = True

    name: Literal["mirostat-v2"] = "mirostat-v2"
    tau: float = Field(5.0, gt=0, le=100, description="Target of the mean surprisal of a token, in bits.")
    eta: float = Field(0.1, ge=0, le=10, description="Learning rate of the maximum surprisal.")

    def build(self, context: SamplerContext) -> MirostatV2:
        return MirostatV2(self.tau, self.eta, context.batch)
