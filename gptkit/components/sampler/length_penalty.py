"""Sampler `length-penalty`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.generated import PromptSampler
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LengthPenalty", "LengthPenaltySpec"]

_LARGEST = 1e30
"""Limit of the bonus, far above any logit and far below the range of fp32."""


class LengthPenalty(PromptSampler):
    """Runtime part of `LengthPenaltySpec`."""

    def __init__(self, start: int, factor: float, end_id: int | None) -> None:
        self.start, self.factor, self.end_id = start, factor, end_id

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        late = [max(0, n - self.start) for n in self.n_generated(history)]
        if self.end_id is None or not any(late):
            return logits_BV
        growth = [self._growth(n) for n in late]
        end_B = logits_BV[:, self.end_id]
        bonus_B = (end_B.abs() * torch.tensor(growth, device=end_B.device)).clamp_max(_LARGEST)
        changed_BV = logits_BV.clone()
        changed_BV[:, self.end_id] = end_B + bonus_B.where(end_B.isfinite(), 0)
        return changed_BV

    def _growth(self, n: int) -> float:
        try:
            return min(self.factor**n - 1, _LARGEST)
        except OverflowError:
            return _LARGEST


class LengthPenaltySpec(SamplerSpec):
    """Make the end token more likely with every token after a given length, so that long texts end where it fits.

    Formula:
        logits[end] ← logits[end] + |logits[end]| · (factor^(t − start) − 1)  once t > start tokens have been generated

    Shapes:
        (B, V) → (B, V)

    Notes:
        transformers' `exponential_decay_length_penalty`. The effect depends on the size of the logit. No effect if the
        tokenizer has no end token. The length penalty of a beam search is a field of the decoding `beam`.
    """

    formula: ClassVar[str] = r"""
        z_{\text{end}} \leftarrow z_{\text{end}} + |z_{\text{end}}| \left(f^{t - s} - 1\right) \qquad t > s
    """

    name: Literal["length-penalty"] = "length-penalty"
    start: int = Field(100, ge=0, description="Number of generated tokens before it begins.")
    factor: float = Field(1.05, gt=0, le=100, description="Growth with each token; below 1 discourages the end.")

    def build(self, context: SamplerContext) -> LengthPenalty:
        end_id = None if context.tokenizer is None else context.tokenizer.end_id
        return LengthPenalty(self.start, self.factor, end_id if end_id is not None and end_id < context.vocab_size else None)
