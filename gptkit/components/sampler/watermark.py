"""Sampler `watermark`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.ops.green_list import GreenLists, Scheme

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Watermark", "WatermarkSpec"]

_N_TRIED = 40
"""Number of most likely tokens that are judged with the scheme "selfhash", as in the published implementation."""


class Watermark(Sampler):
    """Runtime part of `WatermarkSpec`."""

    def __init__(self, lists: GreenLists, bias: float) -> None:
        self.lists, self.bias = lists, bias

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        biased_BV = logits_BV.clone()
        for row, tokens in enumerate(history):
            if len(tokens) >= self.lists.width:
                biased_BV[row, self._green(logits_BV[row], list(tokens)).to(logits_BV.device)] += self.bias
        return biased_BV

    def _green(self, logits_V: Tensor, tokens: list[int]) -> Tensor:
        import torch

        if self.lists.scheme == "lefthash":
            return self.lists.ids(tokens)
        likely = logits_V.topk(min(_N_TRIED, len(logits_V))).indices.tolist()
        last = tokens[-self.lists.width :]
        return torch.tensor([token for token in likely if token in self.lists.ids([*last, token])], dtype=torch.long)


class WatermarkSpec(SamplerSpec):
    """Watermark: favor a green part of the vocabulary, selected by the tokens before and a key.

    Formula:
        logits[v] ← logits[v] + bias  for every v in the green list:  a random permutation of the vocabulary, seeded by
        key · (previous token) or by a hash of the last tokens and v, of which the first `ratio` is green

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/2301.10226 and https://arxiv.org/abs/2306.04634

    Notes:
        The watermark is detected by `gptkit.inference.watermark.detect`, with the same fields and vocabulary. It equals that
        of transformers, on the CPU. "selfhash" judges the 40 most likely tokens only, each with a permutation of its own.
    """

    formula: ClassVar[str] = r"z_v \leftarrow z_v + b \qquad v \in \text{green}(\text{key}, x_{t-1})"

    name: Literal["watermark"] = "watermark"
    ratio: float = Field(0.25, gt=0, lt=1, description="Share of the vocabulary that is green.")
    bias: float = Field(2.0, ge=-100, le=100, description="Added to the logits of green tokens.")
    key: int = Field(15485863, ge=0, lt=2**40, description="The secret that green lists depend on.")
    scheme: Scheme = Field(
        "lefthash", description="What selects the green list: the previous token, or the last tokens and the next one."
    )
    width: int = Field(1, ge=1, description="Number of previous tokens that are needed, and hashed with selfhash.")

    def green_lists(self, vocab_size: int) -> GreenLists:
        """Return the green lists of a vocabulary."""
        return GreenLists(vocab_size, self.ratio, self.key, self.scheme, self.width)

    def build(self, context: SamplerContext) -> Watermark:
        return Watermark(self.green_lists(context.vocab_size), self.bias)
