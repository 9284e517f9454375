"""Sampler `forced-tokens`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.generated import PromptSampler, encoded, force
from gptkit.components.sampler.ids import check_ids
from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ForcedTokens", "ForcedTokensSpec"]


class ForcedTokens(PromptSampler):
    """Runtime part of `ForcedTokensSpec`.

    Args:
        tokens: tokens by position after the prompt.
        end_id: the last token; None if it is not forced.
        limits: the maximum number of generated tokens of each row.
    """

    def __init__(self, tokens: Mapping[int, int], end_id: int | None, limits: Sequence[int]) -> None:
        self.tokens, self.end_id = tokens, end_id
        self._limits = list(limits)

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        positions = self.n_generated(history)
        forced = [self.tokens.get(position) for position in positions]
        if self.end_id is not None:
            last = [position == limit - 1 for position, limit in zip(positions, self._limits, strict=True)]
            forced = [self.end_id if ends else token for ends, token in zip(last, forced, strict=True)]
        return force(logits_BV, forced)

    def reorder(self, rows: Sequence[int]) -> None:
        super().reorder(rows)
        self._limits = [self._limits[row] for row in rows] if self._limits else []


class ForcedTokensSpec(SamplerSpec):
    """Force tokens at given positions of the generated text, a text at its beginning, or the end token at its end.

    Formula:
        logits[v] ← −∞ for every v other than the token of the position, if it has one

    Shapes:
        (B, V) → (B, V)

    Notes:
        Place it first: a token that an earlier sampler excluded is not forced. The end token is forced where the maximum
        number of tokens is reached, if the tokenizer has one and the maximum is known.
    """

    formula: ClassVar[str] = r"z_v \leftarrow -\infty \qquad v \ne \text{token}(t)"

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"tokens": {0: 5, 2: 6}}, {"text": "Sure", "end": True})

    name: Literal["forced-tokens"] = "forced-tokens"
    text: str = Field("", description="Text at the beginning; special tokens are recognized.")
    tokens: dict[Annotated[int, Field(ge=0)], int] = Field(
        default_factory=dict, description="Token ids by position; position 0 is the first generated token."
    )
    end: bool = Field(False, description="Force the end token where max_new_tokens is reached.")

    def build(self, context: SamplerContext) -> ForcedTokens:
        check_ids("forced-tokens", self.tokens.values(), context.vocab_size)
        begin = encoded("forced-tokens", self.text, context.tokenizer, context.vocab_size) if self.text else []
        double = sorted(position for position in self.tokens if position < len(begin))
        if double:
            raise GptkitError(
                f"sampler 'forced-tokens': position {double[0]} is part of the text, which has {len(begin)} tokens",
                hint=f"Use positions from {len(begin)}, or remove the text.",
            )
        end_id = context.tokenizer.end_id if self.end and context.tokenizer is not None and context.limits else None
        if end_id is not None and end_id >= context.vocab_size:
            end_id = None
        return ForcedTokens({**dict(enumerate(begin)), **self.tokens}, end_id, context.limits)
