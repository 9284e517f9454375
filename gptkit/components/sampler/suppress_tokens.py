"""Sampler `suppress-tokens`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.generated import PromptSampler
from gptkit.components.sampler.ids import check_ids
from gptkit.kinds.sampler import SamplerContext, SamplerSpec
from gptkit.ops.rule_out import rule_out

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SuppressTokens", "SuppressTokensSpec"]


class SuppressTokens(PromptSampler):
    """Runtime part of `SuppressTokensSpec`."""

    def __init__(self, remove_V: Tensor, first: int | None = None) -> None:
        self.remove_V, self.first = remove_V, first

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        self.remove_V = self.remove_V.to(logits_BV.device)
        if self.first is None:
            return rule_out(logits_BV, self.remove_V)
        import torch

        early = [n < self.first for n in self.n_generated(history)]
        if not any(early):
            return logits_BV
        return rule_out(logits_BV, torch.tensor(early, device=logits_BV.device)[:, None] & self.remove_V)


class SuppressTokensSpec(SamplerSpec):
    """Exclude given tokens.

    Formula:
        logits[v] ← −∞ for v in tokens, while fewer than `first` tokens have been generated

    Shapes:
        (B, V) → (B, V)

    Notes:
        Without effect if all tokens would be excluded.
    """

    formula: ClassVar[str] = r"z_v \leftarrow -\infty \qquad v \in \text{tokens}"

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"tokens": (0, 2)}, {"tokens": (3, 4), "first": 2})

    name: Literal["suppress-tokens"] = "suppress-tokens"
    tokens: tuple[int, ...] = Field((), description="The ids of the tokens.")
    first: int | None = Field(
        None, ge=1, description="Number of generated tokens for which they are excluded; always by default."
    )

    def build(self, context: SamplerContext) -> SuppressTokens:
        import torch

        check_ids("suppress-tokens", self.tokens, context.vocab_size)
        remove_V = torch.zeros(context.vocab_size, dtype=torch.bool)
        remove_V[list(self.tokens)] = True
        return SuppressTokens(remove_V, self.first)
