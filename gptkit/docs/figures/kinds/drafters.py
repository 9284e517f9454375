"""Drafters: a text, and the tokens that are proposed to follow it.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.chips import Chips
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.subjects import first
from gptkit.kinds.drafter import DrafterContext, DrafterSpec
from gptkit.kinds.tokenizer import TokenizerSpec

__all__ = ["draw"]

TEXT = "the river rose; by noon the river "
LEARNED = "by evening the river rose above the meadow; by noon the river fell again."
"""The text that stands for what the draft model has learned."""


@torch.no_grad()
def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return a text with the drafter's proposal."""
    spec = registry.component("tokenizer", "byte").model_validate({"name": "byte"}, context={"registry": registry})
    tokenizer = cast("TokenizerSpec", spec).fit(iter(()))
    reader = _Reader(tokenizer.vocab_size, tokenizer.encode(LEARNED))
    context = DrafterContext(tokenizer.vocab_size, tokenizer, lambda _: reader, lambda: reader)
    drafter = cast("DrafterSpec", first(cls, registry).spec).build(context)
    history = tokenizer.encode(TEXT)
    proposal = list(drafter.propose(history, 8))
    pieces = [(tokenizer.decode([token]), "") for token in [*history, *proposal]]
    described = f"After “{TEXT}”, {len(proposal)} tokens are proposed: “{tokenizer.decode(proposal)}”."
    chips = Chips("text and proposal", pieces, described, style="last", first_new=len(history))
    caption = (
        f"Bytes as tokens; highlighted: the {len(proposal)} tokens that the drafter proposes. Where it asks a draft model, "
        f"that is one that continues as in “{LEARNED}”."
    )
    return Figure([chips], caption)


class _Reader:
    """A draft model that continues as in a text, after the longest ending that occurs in it."""

    def __init__(self, vocab_size: int, learned: Sequence[int]) -> None:
        self._vocab_size = vocab_size
        self._learned = list(learned)

    def __call__(self, text: Sequence[int]) -> Tensor:
        logits_V = torch.zeros(self._vocab_size)
        for length in range(min(8, len(text)), 0, -1):
            ending = list(text[-length:])
            for at in range(len(self._learned) - length):
                if self._learned[at : at + length] == ending:
                    logits_V[self._learned[at + length]] = 20.0
                    return logits_V
        return logits_V

    def mark(self) -> None:
        """Nothing to do without a cache."""
