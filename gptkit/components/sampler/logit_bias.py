"""Sampler `logit-bias`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.ids import check_ids
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LogitBias", "LogitBiasSpec"]


class LogitBias(Sampler):
    """Runtime part of `LogitBiasSpec`."""

    def __init__(self, bias_V: Tensor) -> None:
        self.bias_V = bias_V

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        self.bias_V = self.bias_V.to(logits_BV.device)
        return logits_BV + self.bias_V


class LogitBiasSpec(SamplerSpec):
    """Add a bias to the logits of given tokens.

    Formula:
        logits[v] ← logits[v] + bias[v]

    Shapes:
        (B, V) → (B, V)
    """

    formula: ClassVar[str] = r"z_v \leftarrow z_v + b_v"

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"bias": {0: -2.0, 1: 1.5}},)

    name: Literal["logit-bias"] = "logit-bias"
    bias: dict[int, Annotated[float, Field(ge=-1e6, le=1e6)]] = Field(
        default_factory=dict, description="Bias by token id; −100 practically excludes a token."
    )

    def build(self, context: SamplerContext) -> LogitBias:
        import torch

        check_ids("logit-bias", self.bias, context.vocab_size)
        bias_V = torch.zeros(context.vocab_size)
        for token, value in self.bias.items():
            bias_V[token] = value
        return LogitBias(bias_V)
