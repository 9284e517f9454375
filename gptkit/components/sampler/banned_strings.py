"""Sampler `banned-strings`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.ops.rule_out import rule_out

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BannedStrings", "BannedStringsSpec"]


class BannedStrings(Sampler):
    """Runtime part of `BannedStringsSpec`.

    Args:
        strings: the UTF-8 bytes of the strings.
        pieces: the bytes of every token; None for special tokens.
    """

    def __init__(self, strings: Sequence[bytes], pieces: Sequence[bytes | None]) -> None:
        self._strings, self._pieces = strings, pieces
        self._reach = max(map(len, strings), default=1) - 1
        ordered = sorted((piece, token) for token, piece in enumerate(pieces) if piece)
        self._sorted, self._tokens = [piece for piece, _ in ordered], [token for _, token in ordered]
        self._masks: dict[bytes, Tensor | None] = {}

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        masks = [self._mask(self._begun(tokens), logits_BV) for tokens in history]
        if all(mask_V is None for mask_V in masks):
            return logits_BV
        none_V = torch.zeros_like(logits_BV[0], dtype=torch.bool)
        return rule_out(logits_BV, torch.stack([none_V if mask_V is None else mask_V for mask_V in masks]))

    def _begun(self, history: Sequence[int]) -> bytes:
        """Return the longest ending of the text that is the beginning of a string."""
        ending = b""
        for token in reversed(history):
            piece = self._pieces[token] if token < len(self._pieces) else None
            if piece is None or len(ending) >= self._reach:
                break
            ending = piece + ending
        for start in range(max(0, len(ending) - self._reach), len(ending)):
            if any(len(each) > len(ending) - start and each.startswith(ending[start:]) for each in self._strings):
                return ending[start:]
        return b""

    def _mask(self, begun: bytes, like_BV: Tensor) -> Tensor | None:
        """Return the tokens that complete a string after a given ending, (V,); None if there are none."""
        if begun not in self._masks:
            import torch

            tokens = self._completing(begun)
            mask_V = torch.zeros(like_BV.shape[-1], dtype=torch.bool)
            mask_V[[token for token in tokens if token < like_BV.shape[-1]]] = True
            self._masks[begun] = mask_V.to(like_BV.device) if tokens else None
        return self._masks[begun]

    def _completing(self, begun: bytes) -> list[int]:
        if not begun:
            return [
                token
                for token, piece in enumerate(self._pieces)
                if piece is not None and any(each in piece for each in self._strings)
            ]
        tokens = set(self._completing(b""))
        for start in range(len(begun)):
            for each in self._strings:
                if len(each) > len(begun) - start and each.startswith(begun[start:]):
                    tokens.update(self._starting_with(each[len(begun) - start :]))
        return sorted(tokens)

    def _starting_with(self, rest: bytes) -> list[int]:
        place, tokens = bisect_left(self._sorted, rest), []
        while place < len(self._sorted) and self._sorted[place].startswith(rest):
            tokens.append(self._tokens[place])
            place += 1
        return tokens


class BannedStringsSpec(SamplerSpec):
    """Exclude tokens that would complete a banned string, so that the generated text contains none.

    Formula:
        exclude v  ⇔  the text followed by v contains a string that ends within v

    Shapes:
        (B, V) → (B, V)

    Notes:
        Strings are found in the bytes of the text, however it is divided into tokens, and may begin in the prompt. Only the
        token that would complete one is excluded, so texts may contain the beginning of a string. The names of special
        tokens are not searched, and no string extends over one. Place it first: if the samplers before it leave only
        tokens that complete a string, it has no effect.
    """

    formula: ClassVar[str] = r"z_v \leftarrow -\infty \qquad \text{if text} + v \text{ ends in a string}"

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"strings": ("ab", "\x03\x04\x05")},
        {"strings": ("As an AI",), "ignore_case": True},
    )

    name: Literal["banned-strings"] = "banned-strings"
    strings: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), description="The strings.")
    ignore_case: bool = Field(False, description="Whether the case of ASCII letters is ignored.")

    def build(self, context: SamplerContext) -> BannedStrings:
        if context.tokenizer is None:
            raise GptkitError("sampler 'banned-strings' needs a tokenizer", hint="Pass a tokenizer, or use suppress-tokens.")
        tokenizer, special = context.tokenizer, set(context.tokenizer.special_tokens.values())
        size = min(context.vocab_size, tokenizer.vocab_size)
        pieces = [None if token in special else tokenizer.token_bytes(token) for token in range(size)]
        strings = [each.encode() for each in self.strings]
        if self.ignore_case:
            strings = [each.lower() for each in strings]
            pieces = [None if piece is None else piece.lower() for piece in pieces]
        return BannedStrings(strings, pieces)
