"""Sampler `greedy`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Greedy", "GreedySpec"]


class Greedy(Sampler):
    """Runtime part of `GreedySpec`."""

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        best_B1 = logits_BV.argmax(dim=-1, keepdim=True)
        only_BV = logits_BV.new_full(logits_BV.shape, -math.inf)
        return only_BV.scatter(-1, best_B1, logits_BV.gather(-1, best_B1))


class GreedySpec(SamplerSpec):
    """Greedy decoding: select the most likely token, so equal prompts give equal texts.

    Formula:
        next = argmax_v logits[v]; the lowest id if several are equal

    Shapes:
        (B, V) → (B, V)

    Notes:
        No random numbers are used, and samplers after it have no effect.
    """

    formula: ClassVar[str] = r"\text{next} = \operatorname{argmax}_v z_v"

    deterministic: ClassVar[bool] = True

    name: Literal["greedy"] = "greedy"

    def build(self, context: SamplerContext) -> Greedy:
        return Greedy()
