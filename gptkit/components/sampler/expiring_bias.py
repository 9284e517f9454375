"""Sampler `expiring-bias`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.generated import PromptSampler
from gptkit.components.sampler.ids import check_ids
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ExpiringBias", "ExpiringBiasSpec"]

Decay = Literal["none", "linear", "exponential"]


class ExpiringBias(PromptSampler):
    """Runtime part of `ExpiringBiasSpec`."""

    def __init__(self, bias_V: Tensor, tokens: int, decay: Decay) -> None:
        self.bias_V, self.tokens, self.decay = bias_V, tokens, decay

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        weights = [self._weight(position) for position in self.n_generated(history)]
        if not any(weights):
            return logits_BV
        self.bias_V = self.bias_V.to(logits_BV.device)
        return logits_BV + torch.tensor(weights, device=logits_BV.device)[:, None] * self.bias_V

    def _weight(self, position: int) -> float:
        if self.decay == "exponential":
            return math.exp2(-position / self.tokens)
        if self.decay == "linear":
            return max(0.0, 1 - position / self.tokens)
        return float(position < self.tokens)


class ExpiringBiasSpec(SamplerSpec):
    """Add a bias to the logits of given tokens at the beginning of the generated text only.

    Formula:
        logits[v] ← logits[v] + w(t) · bias[v],  t the number of tokens generated so far, n = tokens
        none: w = 1 if t < n, else 0;  linear: w = max(0, 1 − t / n);  exponential: w = 2^(−t / n)

    Shapes:
        (B, V) → (B, V)
    """

    formula: ClassVar[str] = r"""
        z_v \leftarrow z_v + w(t)\, b_v
        w(t) = \begin{cases} 1_{t < n} & \text{none} \\ \max(0, 1 - t/n) & \text{linear} \\
        2^{-t/n} & \text{exponential} \end{cases}
    """

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"bias": {0: -2.0, 1: 1.5}},
        {"bias": {7: 3.0}, "tokens": 2, "decay": "linear"},
        {"bias": {7: 3.0}, "tokens": 2, "decay": "exponential"},
    )

    name: Literal["expiring-bias"] = "expiring-bias"
    bias: dict[int, Annotated[float, Field(ge=-1e6, le=1e6)]] = Field(
        default_factory=dict, description="Bias by token id; −100 practically excludes a token."
    )
    tokens: int = Field(16, ge=1, description="Number of generated tokens until the bias ends, or is halved.")
    decay: Decay = Field("none", description="How it decreases: at once, linearly, or by half every `tokens` tokens.")

    def build(self, context: SamplerContext) -> ExpiringBias:
        import torch

        check_ids("expiring-bias", self.bias, context.vocab_size)
        bias_V = torch.zeros(context.vocab_size)
        for token, value in self.bias.items():
            bias_V[token] = value
        return ExpiringBias(bias_V, self.tokens, self.decay)
