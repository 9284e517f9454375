"""Sampler `guidance`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.generated import PromptSampler, encoded
from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import LogitsReader, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Guidance", "GuidanceSpec"]


class Guidance(PromptSampler):
    """Runtime part of `GuidanceSpec`.

    Args:
        scale: the scale.
        negative: tokens that replace the prompt; None for its last token.
        reader: returns the logits after other texts.
    """

    def __init__(self, scale: float, negative: Sequence[int] | None, reader: LogitsReader) -> None:
        self.scale, self.negative = scale, negative
        self._reader = reader

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        texts = []
        for tokens, n_prompt in zip(history, self.prompt_lengths(history), strict=True):
            begin = tokens[n_prompt - 1 : n_prompt] if self.negative is None else self.negative
            texts.append([*begin, *tokens[n_prompt:]])
        other_BV = self._reader(texts).log_softmax(dim=-1)
        guided_BV = other_BV + self.scale * (logits_BV.log_softmax(dim=-1) - other_BV)
        # Excluded by the samplers before: -inf, whatever the sign of the scale.
        return guided_BV.masked_fill(logits_BV == -math.inf, -math.inf)

    def reorder(self, rows: Sequence[int]) -> None:
        super().reorder(rows)
        self._reader.reorder(rows)


class GuidanceSpec(SamplerSpec):
    """Classifier-free guidance: amplify what the prompt contributes, compared with another prompt or none.

    Formula:
        logits[v] ← ln U[v] + scale · (ln P[v] − ln U[v])
        P = softmax(logits);  U: the model's distribution after `negative` (else the prompt's last token) and the same
        generated tokens

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/2306.17806

    Notes:
        Every token takes a second forward pass, with a cache of its own. Place it first: what it compares are the model's
        distributions.
    """

    formula: ClassVar[str] = r"""
        z_v \leftarrow \ln U_v + s\, (\ln P_v - \ln U_v)
        P = \operatorname{softmax}(z) \qquad U = \text{without the prompt}
    """

    name: Literal["guidance"] = "guidance"
    scale: float = Field(1.5, ge=-100, le=100, description="1 has no effect, 0 generates as after the other prompt.")
    negative: str | None = Field(
        None, min_length=1, description="Text in place of the prompt; by default only the last token of the prompt is kept."
    )

    def build(self, context: SamplerContext) -> Guidance:
        if context.reader is None:
            raise GptkitError(
                "sampler 'guidance' needs the model, for a second forward pass",
                hint="Use it in generate(), stream() or a Scheduler; with a Chain, set SamplerContext.reader.",
            )
        negative = None
        if self.negative is not None:
            negative = encoded("guidance", self.negative, context.tokenizer, context.vocab_size)
        return Guidance(self.scale, negative or None, context.reader())
