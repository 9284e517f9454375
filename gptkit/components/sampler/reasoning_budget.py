"""Sampler `reasoning-budget`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.generated import PromptSampler, encoded, force
from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ReasoningBudget", "ReasoningBudgetSpec"]


@dataclasses.dataclass(frozen=True)
class _Row:
    """State of a row.

    Attributes:
        n_read: number of tokens read.
        ending: the last bytes of the text, in which the next marker may have begun.
        spent: number of generated tokens since the start marker; None outside of a reasoning block.
        n_forced: number of forced tokens that the text already has.
    """

    n_read: int = 0
    ending: bytes = b""
    spent: int | None = None
    n_forced: int = 0


class ReasoningBudget(PromptSampler):
    """Runtime part of `ReasoningBudgetSpec`.

    Args:
        spec: the spec.
        closing: the tokens that are forced when the budget is spent.
        token_bytes: function that returns the bytes of a token.
        batch: number of rows.
    """

    def __init__(
        self, spec: ReasoningBudgetSpec, closing: Sequence[int], token_bytes: Callable[[int], bytes], batch: int
    ) -> None:
        self.budget, self.closing = spec.budget, closing
        self._start, self._end = spec.start.encode(), spec.end.encode()
        self._token_bytes = token_bytes
        self._rows = [_Row()] * batch

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        prompts = self.prompt_lengths(history)
        forced: list[int | None] = []
        for index, (tokens, n_prompt) in enumerate(zip(history, prompts, strict=True)):
            row = self._rows[index]
            for place in range(row.n_read, len(tokens)):
                row = self._read(row, tokens[place], generated=place >= n_prompt)
            self._rows[index] = row
            forced.append(self.closing[row.n_forced] if self._exhausted(row) else None)
        return force(logits_BV, forced)

    def reorder(self, rows: Sequence[int]) -> None:
        super().reorder(rows)
        self._rows = [self._rows[row] for row in rows]

    def _exhausted(self, row: _Row) -> bool:
        return row.spent is not None and (row.n_forced > 0 or (row.spent >= self.budget and _complete(row.ending)))

    def _read(self, row: _Row, token: int, *, generated: bool) -> _Row:
        n_forced = row.n_forced + (token == self.closing[row.n_forced]) if self._exhausted(row) else 0
        spent, text = row.spent, row.ending + self._token_bytes(token)
        if spent is not None:
            spent += generated
        # A token may contain several markers.
        while True:
            marker = self._start if spent is None else self._end
            if marker not in text:
                break
            text = text[text.index(marker) + len(marker) :]
            spent, n_forced = (0 if spent is None else None), 0
        if n_forced == len(self.closing):
            spent, n_forced = None, 0  # the tokens do not contain the marker as it is written
        # At least the bytes of one character, so that an incomplete one is recognized.
        reach = max(len(self._start), len(self._end), 4)
        return _Row(row.n_read + 1, text[-reach:], spent, n_forced)


def _complete(ending: bytes) -> bool:
    """Return whether the text does not end within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    decoder.decode(ending)
    return not decoder.getstate()[0]


class ReasoningBudgetSpec(SamplerSpec):
    """Limit the number of tokens between the markers of reasoning, then force the end marker.

    Formula:
        once `budget` tokens have been generated after the start marker, without an end marker:
        logits[v] ← −∞ for every v other than the next token of message + end

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://github.com/ggml-org/llama.cpp/blob/master/common/reasoning-budget.cpp

    Notes:
        Markers are found in the text, including the prompt, however it is divided into tokens; tokens of the prompt do not
        count. Every block has a budget of its own. A character is completed first. Place it first.
    """

    formula: ClassVar[str] = r"t \ge \text{budget}: \qquad z_v \leftarrow -\infty \text{ for } v \ne \text{end}_i"

    name: Literal["reasoning-budget"] = "reasoning-budget"
    budget: int = Field(1024, ge=0, description="Maximum number of tokens in a block; 0 ends it at once.")
    start: str = Field("<think>", min_length=1, description="Marker that begins the reasoning.")
    end: str = Field("</think>", min_length=1, description="Marker that ends the reasoning.")
    message: str = Field("", description="Text that is forced before the end marker.")

    def build(self, context: SamplerContext) -> ReasoningBudget:
        if context.tokenizer is None:
            raise GptkitError("sampler 'reasoning-budget' needs a tokenizer", hint="Pass the model's tokenizer.")
        closing = encoded("reasoning-budget", self.message + self.end, context.tokenizer, context.vocab_size)
        if not closing:
            raise GptkitError(
                f"sampler 'reasoning-budget': the tokenizer has no tokens for the end marker {self.end!r}",
                hint="Use a marker that the model was trained with.",
            )
        return ReasoningBudget(self, closing, context.tokenizer.token_bytes, context.batch)
