"""Sampler `structured`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.core.spec import fail
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.ops.rule_out import rule_out
from gptkit_structured.vocabulary import vocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher

__all__ = ["Structured", "StructuredSpec"]

_log = logging.getLogger("gptkit")


class StructuredSpec(SamplerSpec):
    """Exclude tokens with which the text cannot conform to a JSON schema, a regular expression or a grammar.

    Formula:
        logits[v] ← −∞ unless the generated text followed by v is a prefix of a conforming text
        logits[end] is kept if and only if the generated text conforms

    Shapes:
        (B, V) → (B, V)

    Notes:
        Put it first in the chain: if another sampler has excluded all conforming tokens, the row continues without
        structure, with a warning. A text that is truncated at the maximum length is a prefix of a conforming one.
    """

    name: Literal["structured"] = "structured"
    regex: str | None = Field(
        None, description="Regular expression for the whole text, in Rust's syntax, without look-around and back references."
    )
    json_schema: dict[str, Any] | None = Field(
        None, description="JSON schema, as data. Without any constraint, the empty schema is used: any JSON."
    )
    grammar: str | None = Field(None, description="Grammar in llguidance's variant of Lark, with the start rule `start`.")
    whitespace: bool = Field(True, description="Allow whitespace between the parts of JSON.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"regex": "[a-z]+( [a-z]+)*"},
        {"json_schema": {"type": "array", "items": {"type": "integer"}}, "whitespace": False},
        {"grammar": 'start: "a" start "b" | "-"'},
    )

    @model_validator(mode="after")
    def _can_be_followed(self) -> StructuredSpec:
        from llguidance import LLMatcher

        given = [field for field in ("regex", "json_schema", "grammar") if getattr(self, field) is not None]
        if len(given) > 1:
            fail(f"{' and '.join(given)} exclude each other; remove one", (given[1],), getattr(self, given[1]))
        message = LLMatcher.validate_grammar(self.compiled())
        if message and not message.startswith("WARNING"):
            field = given[0] if given else "json_schema"
            fail(f"is not supported: {_first_lines(message)}", (field,), getattr(self, field))
        return self

    def compiled(self) -> str:
        """Return the grammar for llguidance."""
        from llguidance import LLMatcher

        if self.grammar is not None:
            return LLMatcher.grammar_from_lark(self.grammar)
        if self.regex is not None:
            return LLMatcher.grammar_from_regex(self.regex)
        schema = json.dumps(self.json_schema or {})
        return LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": self.whitespace})

    def build(self, context: SamplerContext) -> Structured:
        from llguidance import LLMatcher

        tokenizer = context.tokenizer
        if tokenizer is None:
            raise GptkitError("sampler 'structured' requires a tokenizer")
        end_id = tokenizer.end_id
        if end_id is None or end_id >= context.vocab_size:
            raise GptkitError(
                "sampler 'structured' requires a tokenizer with an end token, to end a complete text",
                hint="Set `end_token` in the tokenizer's spec before training.",
            )
        matcher = LLMatcher(vocabulary(tokenizer, end_id, context.vocab_size), self.compiled(), log_level=0)
        if matcher.is_error():
            raise GptkitError(f"sampler 'structured' does not support its grammar: {_first_lines(matcher.get_error())}")
        return Structured([_Row(matcher.deep_copy()) for _ in range(context.batch)], end_id, context.vocab_size)


class _Row:
    """State of one text. `n_seen` is the number of tokens of its history, including the prompt, that were processed."""

    def __init__(self, matcher: LLMatcher) -> None:
        self.matcher = matcher
        self.n_seen: int | None = None
        self.ended = False
        self.lost = False

    def copy(self) -> _Row:
        copied = _Row(self.matcher.deep_copy())
        copied.n_seen, copied.ended, copied.lost = self.n_seen, self.ended, self.lost
        return copied

    def read(self, history: Sequence[int], end_id: int) -> None:
        if self.n_seen is None:  # the prompt does not count
            self.n_seen = len(history)
        for token in history[self.n_seen :]:
            if self.ended or self.lost:
                break
            if token == end_id and self.matcher.is_accepting():
                self.ended = True
            elif self.matcher.try_consume_tokens([token]) != 1:
                self.lost = True
                reason = self.matcher.get_error() or "other samplers exclude every conforming token"
                _log.warning("sampler 'structured': a text continues without structure: %s", _first_lines(reason))
        self.n_seen = len(history)


class Structured(Sampler):
    """Runtime part of `StructuredSpec`: one matcher per row, which receives the new tokens of the row."""

    def __init__(self, rows: list[_Row], end_id: int, vocab_size: int) -> None:
        self._rows = rows
        self._end_id = end_id
        self._vocab_size = vocab_size

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        allowed_BV = np.zeros((len(self._rows), self._vocab_size), dtype=np.uint8)
        for allowed_V, row, tokens in zip(allowed_BV, self._rows, history, strict=True):
            row.read(tokens, self._end_id)
            if row.lost:
                allowed_V[:] = 1
            elif row.ended:
                allowed_V[self._end_id] = 1
            else:
                bits = np.frombuffer(row.matcher.compute_bitmask(), dtype=np.uint8)
                allowed_V[:] = np.unpackbits(bits, count=self._vocab_size, bitorder="little")
        remove_BV = torch.from_numpy(allowed_BV == 0).to(logits_BV.device)
        return rule_out(logits_BV, remove_BV)

    def reorder(self, rows: Sequence[int]) -> None:
        # A duplicated row diverges from here.
        old = self._rows
        self._rows = [old[row].copy() if row in rows[:place] else old[row] for place, row in enumerate(rows)]


def _first_lines(message: str) -> str:
    """Return the message without the diagram below it."""
    return " ".join(line.strip() for line in message.strip().splitlines()[:4] if line.strip(" ^|"))


@gptkit.hookimpl
def gptkit_components() -> list[type[SamplerSpec]]:
    return [StructuredSpec]
