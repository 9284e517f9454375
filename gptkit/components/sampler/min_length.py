"""Sampler `min-length`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.ops.rule_out import rule_out

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MinLength", "MinLengthSpec"]


class MinLength(Sampler):
    """Runtime part of `MinLengthSpec`; stores the length of each row's prompt."""

    def __init__(self, tokens: int, end_id: int | None) -> None:
        self.tokens = tokens
        self.end_id = end_id
        self._prompts: list[int] | None = None

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        lengths = [len(tokens) for tokens in history]
        if self._prompts is None:
            self._prompts = lengths
        short = [now - before < self.tokens for now, before in zip(lengths, self._prompts, strict=True)]
        if self.end_id is None or not any(short):
            return logits_BV
        remove_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
        remove_BV[:, self.end_id] = torch.tensor(short, device=logits_BV.device)
        return rule_out(logits_BV, remove_BV)

    def reorder(self, rows: Sequence[int]) -> None:
        if self._prompts is not None:
            self._prompts = [self._prompts[row] for row in rows]


class MinLengthSpec(SamplerSpec):
    """Exclude the end token until the text has a minimum number of tokens.

    Formula:
        logits[end] ← −∞ while fewer than `tokens` tokens have been generated

    Shapes:
        (B, V) → (B, V)

    Notes:
        Without effect if the tokenizer has no end token, or if no other token remains.
    """

    formula: ClassVar[str] = r"z_{\text{end}} \leftarrow -\infty \qquad t < \text{tokens}"

    name: Literal["min-length"] = "min-length"
    tokens: int = Field(1, ge=0, description="Minimum number of generated tokens.")

    def build(self, context: SamplerContext) -> MinLength:
        end_id = None if context.tokenizer is None else context.tokenizer.end_id
        return MinLength(self.tokens, end_id if end_id is not None and end_id < context.vocab_size else None)
