"""Conversations, formatted by the tokenizer's chat template."""

from __future__ import annotations

import datetime
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["Messages", "chat_ids", "turn_end"]

Messages = str | Sequence[Mapping[str, Any]]
"""What was said: mappings with `role` (system, user, assistant) and `content`; a text alone is what a user says."""

_NEVER_TEXT = ("role", "type")


def chat_ids(tokenizer: Tokenizer, messages: Messages, *, reply: bool = True) -> list[int]:
    """The ids of a conversation.

    What is said is text and nothing else: where it spells a special token, it is not taken for one.

    Args:
        tokenizer: one with a `chat_template`.
        messages: the conversation.
        reply: whether it ends with the beginning of the assistant's turn.

    Raises:
        TokenizerError: the tokenizer has no template, Jinja is not installed, or the template refuses the conversation.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    fence = secrets.token_hex(8)
    specials = sorted(tokenizer.special_tokens, key=len, reverse=True)
    hidden: list[str] = []

    def hide(match: re.Match[str]) -> str:
        hidden.append(match[0])
        return f"{fence}-{len(hidden) - 1}-{fence}"

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub("|".join(map(re.escape, specials)) or r"(?!)", hide, value)
        if isinstance(value, Mapping):
            return {key: inner if key in _NEVER_TEXT else plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value

    text = _render(tokenizer, [plain(message) for message in messages], reply=reply)
    ids: list[int] = []
    for index, part in enumerate(re.split(rf"{fence}-(\d+)-{fence}", text)):
        if index % 2:
            ids += tokenizer.encode(hidden[int(part)])
        elif part:
            ids += tokenizer.encode(part, allowed_special=tokenizer.special_tokens)
    return ids


def turn_end(tokenizer: Tokenizer) -> str | None:
    """The special token that the template puts behind what the assistant says, where it puts one there."""
    said = secrets.token_hex(8)
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": said}]
    try:
        behind = _render(tokenizer, messages, reply=False).partition(said)[2].lstrip()
    except TokenizerError:
        return None
    return next(
        (token for token in sorted(tokenizer.special_tokens, key=len, reverse=True) if behind.startswith(token)), None
    )


def _render(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], *, reply: bool) -> str:
    template = tokenizer.chat_template
    if template is None:
        raise TokenizerError(
            "the tokenizer has no chat template: the model was not made for conversations",
            hint="Import a model that has one, or generate from a plain prompt instead.",
        )
    spelled = {number: token for token, number in tokenizer.special_tokens.items()}
    ends = {"bos_token": tokenizer.start_id, "eos_token": tokenizer.end_id}
    names = {key: "" if number is None else spelled.get(number, "") for key, number in ends.items()}
    try:
        compiled = _environment().from_string(template)
        return str(compiled.render(messages=messages, add_generation_prompt=reply, tools=None, documents=None, **names))
    except TokenizerError:
        raise
    except Exception as error:
        # A template is an untrusted program, which may raise any exception.
        raise TokenizerError(f"the chat template cannot lay out the conversation: {error}") from None


def _environment() -> Any:
    """Jinja as chat templates expect it, and closed to all but the conversation."""
    try:
        from jinja2 import nodes
        from jinja2.exceptions import TemplateError
        from jinja2.ext import Extension, loopcontrols
        from jinja2.parser import Parser
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise TokenizerError(
            "a chat template is written in Jinja, which is not installed", hint="Run: pip install 'gptkit[chat]'"
        ) from None

    class Generation(Extension):
        """Marks what the assistant says, for training; the text is the same."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def to_json(value: Any, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    environment.filters["tojson"] = to_json
    return environment
