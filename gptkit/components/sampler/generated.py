"""Shared code of samplers that distinguish the prompt, or select a token. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import Sampler
from gptkit.kinds.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PromptSampler", "encoded", "force"]


class PromptSampler(Sampler):
    """Base class of samplers that distinguish the prompt from what was generated.

    The prompt is what the first call receives.
    """

    _prompts: list[int] | None = None

    def prompt_lengths(self, history: Sequence[Sequence[int]]) -> list[int]:
        """Return the number of prompt tokens of each row."""
        if self._prompts is None:
            self._prompts = [len(tokens) for tokens in history]
        return self._prompts

    def n_generated(self, history: Sequence[Sequence[int]]) -> list[int]:
        """Return the number of generated tokens of each row."""
        return [len(tokens) - start for tokens, start in zip(history, self.prompt_lengths(history), strict=True)]

    def reorder(self, rows: Sequence[int]) -> None:
        if self._prompts is not None:
            self._prompts = [self._prompts[row] for row in rows]


def encoded(sampler: str, text: str, tokenizer: Tokenizer | None, vocab_size: int) -> list[int]:
    """Return the tokens of a text, in which special tokens are recognized.

    Raises:
        GptkitError: the tokenizer is missing, or the model does not have the tokens.
    """
    if tokenizer is None:
        raise GptkitError(f"sampler {sampler!r} needs a tokenizer for a text", hint="Pass a tokenizer, or use token ids.")
    ids = tokenizer.encode(text, allowed_special=tokenizer.special_tokens)
    if any(token >= vocab_size for token in ids):
        raise GptkitError(
            f"sampler {sampler!r}: the text {text!r} has the token {max(ids)}, but the vocabulary has {vocab_size} tokens",
            hint="Use a text whose tokens the model was trained with.",
        )
    return ids


def force(logits_BV: Tensor, tokens: Sequence[int | None]) -> Tensor:
    """Return the logits with every token but the given one of each row excluded.

    A row whose token is None, or is excluded already, is unchanged.
    """
    import torch

    if all(token is None for token in tokens):
        return logits_BV
    device = logits_BV.device
    chosen_B1 = torch.tensor([[-1 if token is None else token] for token in tokens], device=device)
    logit_B1 = logits_BV.gather(-1, chosen_B1.clamp_min(0))
    forced_B1 = (chosen_B1 >= 0) & (logit_B1 > -math.inf)
    others_BV = torch.arange(logits_BV.shape[-1], device=device) != chosen_B1
    return logits_BV.masked_fill(forced_B1 & others_BV, -math.inf)
