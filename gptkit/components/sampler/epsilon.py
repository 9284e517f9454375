"""Sampler `epsilon`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.cutoff import keep_above
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Epsilon", "EpsilonSpec"]


class Epsilon(Sampler):
    """Runtime part of `EpsilonSpec`."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        return keep_above(logits_BV, logits_BV.softmax(dim=-1) >= self.p)


class EpsilonSpec(SamplerSpec):
    """Keep tokens of at least a fixed probability.

    Formula:
        keep v  ⇔  P[v] ≥ p, or v is the most likely token;  P = softmax(logits)

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/2210.15191
    """

    formula: ClassVar[str] = r"\text{keep } v \iff P_v \ge p \qquad P = \operatorname{softmax}(z)"

    anonymous: ClassVar[bool] = True

    name: Literal["epsilon"] = "epsilon"
    p: float = Field(3e-4, gt=0, lt=1, description="The minimum probability; 0.0003 to 0.0009 in the paper.")

    def build(self, context: SamplerContext) -> Epsilon:
        return Epsilon(self.p)
