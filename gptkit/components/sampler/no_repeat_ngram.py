"""Sampler `no-repeat-ngram`. Shapes: B batch, V vocabulary, W windows of n tokens in a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.ops.rule_out import rule_out

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NoRepeatNgram", "NoRepeatNgramSpec"]


class NoRepeatNgram(Sampler):
    """Runtime part of `NoRepeatNgramSpec`."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        vocab_size = logits_BV.shape[-1]
        banned_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
        for row, tokens in enumerate(history):
            if len(tokens) < self.n:
                continue
            windows_WN = torch.tensor(tokens).unfold(0, self.n, 1)
            ending = torch.tensor(tokens[len(tokens) - self.n + 1 :], dtype=torch.long)
            same_W = (windows_WN[:, :-1] == ending).all(dim=-1)
            next_ids = windows_WN[same_W, -1]
            banned_BV[row, next_ids[next_ids < vocab_size].to(banned_BV.device)] = True
        return rule_out(logits_BV, banned_BV)


class NoRepeatNgramSpec(SamplerSpec):
    """Exclude tokens that would repeat a sequence of n tokens of the text, including the prompt.

    Formula:
        exclude v  ⇔  the last n − 1 tokens followed by v already occur in the text

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/1705.04304

    Notes:
        Without effect if all tokens would be excluded.
    """

    formula: ClassVar[str] = r"z_v \leftarrow -\infty \qquad \text{if } x_{t-n+1:t}\, v \text{ occurs in } x"

    name: Literal["no-repeat-ngram"] = "no-repeat-ngram"
    n: int = Field(3, ge=1, description="Length of the sequences, in tokens.")

    def build(self, context: SamplerContext) -> NoRepeatNgram:
        return NoRepeatNgram(self.n)
