"""Sampler `xtc`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.randomness import row_generators
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Xtc", "XtcSpec"]


class Xtc(Sampler):
    """Runtime part of `XtcSpec`; draws one random number per row and call."""

    def __init__(self, threshold: float, probability: float, generators: list[random.Random]) -> None:
        self.threshold, self.probability = threshold, probability
        self._generators = generators

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        applied = [generator.random() < self.probability for generator in self._generators]
        if not any(applied):
            return logits_BV
        above_BV = logits_BV.softmax(dim=-1) >= self.threshold
        lowest_B1 = logits_BV.masked_fill(~above_BV, math.inf).amin(dim=-1, keepdim=True)
        applied_B1 = torch.tensor(applied, device=logits_BV.device)[:, None]
        # With fewer than two tokens above the threshold, nothing is above the lowest of them.
        return logits_BV.masked_fill(applied_B1 & (logits_BV > lowest_B1), -math.inf)

    def reorder(self, rows: Sequence[int]) -> None:
        # A row may be kept more than once; each copy continues the random stream on its own.
        states = [self._generators[row].getstate() for row in rows]
        self._generators = [random.Random() for _ in rows]
        for generator, state in zip(self._generators, states, strict=True):
            generator.setstate(state)


class XtcSpec(SamplerSpec):
    """Exclude top choices (XTC): at random, exclude all tokens above a threshold except the least likely of them.

    Formula:
        with the given probability:  exclude v  ⇔  P[v] > min { P[w] : P[w] ≥ threshold },  P = softmax(logits)

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://github.com/oobabooga/text-generation-webui/pull/6335

    Notes:
        One random number per token decides, drawn from the row's own stream. No effect with fewer than two tokens above
        the threshold, so never if it is above 0.5. Tokens as likely as the least likely of them are kept too.
    """

    formula: ClassVar[str] = r"\text{exclude } v \iff P_v > \min\{P_w : P_w \ge \theta\}"

    anonymous: ClassVar[bool] = True

    name: Literal["xtc"] = "xtc"
    threshold: float = Field(0.1, gt=0, le=1, description="Probability from which a token is a top choice.")
    probability: float = Field(0.5, ge=0, le=1, description="How often the top choices are excluded; 0 is never.")

    def build(self, context: SamplerContext) -> Xtc:
        return Xtc(self.threshold, self.probability, row_generators(context))
