"""Sampler `dry`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Dry", "DrySpec"]

_LOG_LARGEST = 88.7228391
"""Logarithm of the largest fp32: the limit of the penalty's exponent."""


class Dry(Sampler):
    """Runtime part of `DrySpec`.

    Args:
        spec: the spec.
        token_bytes: function that returns the bytes of a token; not used without breakers.
    """

    def __init__(self, spec: DrySpec, token_bytes: Callable[[int], bytes]) -> None:
        self.spec = spec
        self._breakers = [breaker.encode() for breaker in spec.breakers]
        self._reach = max(map(len, self._breakers), default=1) - 1
        self._token_bytes = cache(token_bytes)
        log_base = math.log(spec.base)
        self._highest = int(_LOG_LARGEST / log_base) if log_base > 1e-6 else None

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        changes = [(row, *change) for row, tokens in enumerate(history) for change in self._penalties(tokens)]
        changes = [change for change in changes if change[1] < logits_BV.shape[-1]]
        if not changes or not self.spec.multiplier:
            return logits_BV
        import torch

        rows, tokens, penalties = zip(*changes, strict=True)
        penalty_N = torch.tensor(penalties, device=logits_BV.device)
        places = torch.tensor(rows, device=logits_BV.device), torch.tensor(tokens, device=logits_BV.device)
        return logits_BV.clone().index_put_(places, logits_BV[places] - penalty_N)

    def _penalties(self, history: Sequence[int]) -> list[tuple[int, float]]:
        allowed, window = self.spec.allowed_length, self.spec.window
        # The newest token first, so that a repeated ending is a repeated prefix.
        tokens = list(history if window is None else history[-window:])[::-1]
        if len(tokens) <= allowed:
            return []
        limit = self._since_breaker(tokens)
        if limit < allowed:
            return []
        longest: dict[int, int] = {}
        for place, length in enumerate(_matching_prefixes(tokens)):
            if place and length >= allowed:
                following = tokens[place - 1]
                longest[following] = max(longest.get(following, 0), min(length, limit))
        return [(token, self._penalty(length)) for token, length in longest.items() if not self._breaks(token)]

    def _penalty(self, length: int) -> float:
        exponent = length - self.spec.allowed_length
        exponent = exponent if self._highest is None else min(exponent, self._highest)
        return min(self.spec.multiplier * self.spec.base**exponent, 3.4e38)

    def _breaks(self, token: int) -> bool:
        return any(breaker in self._token_bytes(token) for breaker in self._breakers)

    def _since_breaker(self, tokens: Sequence[int]) -> int:
        """Return the number of tokens after the last breaker in a text given from its end."""
        if not self._breakers:
            return len(tokens)
        later = b""
        for place, token in enumerate(tokens):
            piece = self._token_bytes(token)
            text = piece + later
            ends = [start + len(each) for each in self._breakers if 0 <= (start := text.find(each)) < len(piece)]
            if ends:
                # The breaker starts in this token and may end in a later one.
                end, after = max(ends) - len(piece), place
                while end > 0:
                    after -= 1
                    end -= len(self._token_bytes(tokens[after]))
                return after
            later = text[: self._reach]
        return len(tokens)


def _matching_prefixes(tokens: Sequence[int]) -> list[int]:
    """Return for each place how many tokens from there equal those from the start (the Z function), in linear time."""
    lengths = [0] * len(tokens)
    left = right = 0
    for place in range(1, len(tokens)):
        length = min(right - place, lengths[place - left]) if place < right else 0
        while place + length < len(tokens) and tokens[length] == tokens[place + length]:
            length += 1
        lengths[place] = length
        if place + length > right:
            left, right = place, place + length
    return lengths


class DrySpec(SamplerSpec):
    """Don't repeat yourself (DRY): penalize tokens that would continue a repetition, by its length.

    Formula:
        n[v]: length of the longest ending of the text that occurs earlier in it, followed by v
        logits[v] ← logits[v] − multiplier · base^(n[v] − allowed_length)  if n[v] ≥ allowed_length

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://github.com/oobabooga/text-generation-webui/pull/5677

    Notes:
        Repetitions do not extend over a sequence breaker, and tokens that contain one are not penalized. Breakers are found
        in the text, independent of token boundaries. The exponent is limited to the range of fp32.
    """

    formula: ClassVar[str] = r"""
        z_v \leftarrow z_v - m \cdot b^{n_v - a} \qquad n_v \ge a
        n_v = \text{length of the repetition}
    """

    name: Literal["dry"] = "dry"
    multiplier: float = Field(0.8, ge=0, le=1e6, description="Penalty of a repetition of the allowed length; 0 is none.")
    base: float = Field(1.75, ge=1, le=100, description="Factor of the penalty for each further token of a repetition.")
    allowed_length: int = Field(2, ge=1, description="Length of the longest repetition that is not penalized, in tokens.")
    breakers: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("\n", ":", '"', "*"), description="Strings at which a repetition starts again, such as those of a dialogue."
    )
    window: int | None = Field(None, ge=1, description="Number of last tokens that are considered; all by default.")

    def build(self, context: SamplerContext) -> Dry:
        if self.breakers and context.tokenizer is None:
            raise GptkitError(
                "sampler 'dry' needs a tokenizer for its breakers", hint="Pass a tokenizer, or set breakers to []."
            )
        return Dry(self, context.tokenizer.token_bytes if context.tokenizer is not None else lambda token: b"")
