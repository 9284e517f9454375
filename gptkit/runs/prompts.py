"""Conversion of texts and conversations to prompts: token ids and stop ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.core.spec import describe
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.text.chat import Messages, chat_ids, turn_end

__all__ = ["chat_prompt", "imported_ends", "prompt_ids", "stop_ids"]


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Return the token ids of a prompt, with the tokenizer's start token if it has one; never empty."""
    _require_text(prompt)
    start = [] if tokenizer.start_id is None else [tokenizer.start_id]
    ids = [*start, *tokenizer.encode(prompt)]
    if ids:
        return ids
    # An empty prompt becomes the end token, or a line feed without special tokens.
    return [tokenizer.end_id] if tokenizer.end_id is not None else tokenizer.encode("\n") or [0]


def _require_text(prompt: object) -> None:
    if not isinstance(prompt, str):
        hint = "For several texts at once: gptkit.generate(run.model, run.tokenizer, [ids, …])."
        raise GptkitError(f"a prompt is a text, not {describe(prompt)}", hint=hint)


def chat_prompt(tokenizer: Tokenizer, messages: Messages, ends: Sequence[int] = ()) -> tuple[list[int], frozenset[int]]:
    """Return the token ids of a conversation, and the ids that end the reply (`stop_ids`)."""
    return chat_ids(tokenizer, messages), stop_ids(tokenizer, ends)


def stop_ids(tokenizer: Tokenizer, ends: Sequence[int] = ()) -> frozenset[int]:
    """Return the token ids that end a reply: the end token, the end of a turn in the chat template, and `ends`."""
    turn = turn_end(tokenizer) if tokenizer.chat_template is not None else None
    known = (tokenizer.end_id, None if turn is None else tokenizer.special_tokens[turn], *ends)
    return frozenset(end for end in known if end is not None)


def imported_ends(provenance: Mapping[str, Any]) -> list[int]:
    """Return the token ids that end a text according to an imported model's generation_config.json, or else config.json."""
    imported = provenance.get("imported", {})
    settings = (imported.get("generation", {}), imported.get("token_settings", {}))
    ends = next((each["eos_token_id"] for each in settings if each.get("eos_token_id") is not None), None)
    given = ends if isinstance(ends, list) else [ends]
    return [end for end in given if isinstance(end, int) and not isinstance(end, bool)]
