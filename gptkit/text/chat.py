"""Conversations, rendered by the tokenizer's chat template."""

from __future__ import annotations

import datetime
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["Conversation", "Messages", "Part", "chat_ids", "conversation", "require_generated", "turn_end"]

Messages = str | Sequence[Mapping[str, Any]]
"""Messages: mappings with `role` (system, user, assistant) and `content`; a string is one message of the user."""

_NEVER_TEXT = ("role", "type")
_GENERATED = ("tool_calls", "reasoning_content", "reasoning", "thinking")
"""What a message of the assistant may have beside its content, by the names that templates use."""


def chat_ids(tokenizer: Tokenizer, messages: Messages, *, reply: bool = True) -> list[int]:
    """Return the ids of a conversation.

    A special token that a message contains is encoded as text.

    Args:
        tokenizer: one with a `chat_template`.
        messages: the conversation.
        reply: whether it ends with the beginning of the assistant's turn.

    Raises:
        TokenizerError: the tokenizer has no template, Jinja is not installed, or the template refuses the conversation.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    messages = _with_empty_contents(tokenizer, messages)
    fence = _Fence(tokenizer)
    text = _render(tokenizer, fence.hidden(messages), reply=reply)
    return [each for part in fence.parts(text) for each in part.encode(tokenizer)]


@dataclass(frozen=True)
class Part:
    """A part of a conversation as its template renders it.

    Attributes:
        text: the text.
        literal: whether special tokens in it are text, since a message contains them.
    """

    text: str
    literal: bool

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """Return the ids of the part."""
        return tokenizer.encode(self.text, allowed_special=() if self.literal else tokenizer.special_tokens)


@dataclass(frozen=True)
class Conversation:
    """A conversation as its template renders it, and the spans of it that the assistant generates.

    Attributes:
        parts: the text in parts, no two of which follow each other with the same `literal`.
        generated: spans of characters (start, end) of the whole text that the assistant generates, its turn's end included.
    """

    parts: tuple[Part, ...]
    generated: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(part.text for part in self.parts)


def conversation(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Render a conversation to train on.

    What the assistant generates is what the template marks by ``{% generation %}``. Without marks it is the text between the
    prompt for an assistant's turn, as the template renders it for generation, and the end of that turn.

    Raises:
        TokenizerError: the tokenizer has no template, the template refuses the conversation, or a turn of the assistant is
            rendered otherwise than after its prompt.
    """
    messages = _with_empty_contents(tokenizer, messages)
    fence = _Fence(tokenizer)
    hidden = fence.hidden(messages)
    marked = _render(tokenizer, hidden, reply=False, marks=(fence.begin, fence.end))
    if fence.begin in marked:
        pieces = re.split(f"({re.escape(fence.begin)}|{re.escape(fence.end)})", marked)
        chunks, inside = [], False
        for piece in pieces:
            if piece in (fence.begin, fence.end):
                inside = piece == fence.begin
            else:
                chunks.append((piece, inside))
    else:
        chunks = list(_turns(tokenizer, hidden, marked, messages))
    parts: list[Part] = []
    generated: list[tuple[int, int]] = []
    at = 0
    for chunk, learned in chunks:
        first = at
        for part in fence.parts(chunk):
            at += len(part.text)
            if parts and parts[-1].literal == part.literal:
                part = Part(parts.pop().text + part.text, part.literal)
            parts.append(part)
        if learned and at > first:
            generated.append((first, at))
    return Conversation(tuple(parts), tuple(generated))


def require_generated(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> None:
    """Raise if messages have calls of tools or reasoning, and the template renders none of them: they would not be learned.

    Templates may omit the reasoning of earlier turns, so the last message with it is looked at as the end of a conversation.

    Raises:
        TokenizerError: names the first message with such an entry.
    """
    for key in _GENERATED:
        having = [index for index, message in enumerate(messages, start=1) if message.get(key)]
        if having and _is_lost(tokenizer, messages[: having[-1]], key):
            raise TokenizerError(
                f"message {having[0]} has {key}, which the chat template does not render",
                hint=f"Use a tokenizer whose chat template renders it, or remove {key} or these conversations.",
            )


def _is_lost(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Return whether a conversation is rendered the same without an entry of its messages."""
    try:
        messages = _with_empty_contents(tokenizer, messages)  # as the conversation is rendered
        without = [{name: value for name, value in message.items() if name != key} for message in messages]
        return _render(tokenizer, without, reply=False) == _render(tokenizer, messages, reply=False)
    except TokenizerError:  # the template needs the entry, or refuses the conversation for another reason
        return False


def _with_empty_contents(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return messages with empty contents in place of null ones where the template would render these as ``None``."""
    if all(message.get("content", "") is not None for message in messages):
        return messages
    filled = [{**message, "content": ""} if message.get("content", "") is None else message for message in messages]
    try:
        given = _render(tokenizer, messages, reply=False)
    except TokenizerError:  # a template that joins the content with a text
        return filled
    empty = _render(tokenizer, filled, reply=False)
    return filled if given.replace("None", "") == empty.replace("None", "") else messages


def _turns(
    tokenizer: Tokenizer, hidden: Sequence[Mapping[str, Any]], whole: str, messages: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, bool]]:
    """Yield the rendered text in pieces, each with whether the assistant generates it."""
    at = 0
    for index, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        before = _render(tokenizer, hidden[:index], reply=True) if index else None
        after = _render(tokenizer, hidden[: index + 1], reply=False)
        if before is None or not (after.startswith(before) and whole.startswith(after)):
            why = "answers no prompt" if before is None else "is rendered otherwise than after its prompt"
            raise TokenizerError(
                f"message {index + 1}, of the assistant, {why}, so the tokens that it generates are not known",
                hint="Mark what it generates by {% generation %} in the chat template, or set mask_prompt to false.",
            )
        turn = after[len(before) :]
        # A line feed after the token that ends the turn is not generated.
        bare = turn.rstrip()
        end = len(before) + len(bare if bare.endswith(tuple(tokenizer.special_tokens)) else turn)
        yield whole[at : len(before)], False
        yield whole[len(before) : end], True
        at = end
    yield whole[at:], False


class _Fence:
    """Random marks around special tokens in messages, so that the rendered text does not contain them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._fence = secrets.token_hex(8)
        specials = sorted(tokenizer.special_tokens, key=len, reverse=True)
        self._specials = re.compile("|".join(map(re.escape, specials)) or r"(?!)")
        self._hidden: list[str] = []
        self.begin, self.end = f"{self._fence}-begin-{self._fence}", f"{self._fence}-end-{self._fence}"

    def hidden(self, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the messages with marks in place of special tokens."""
        return [self._plain(message) for message in messages]

    def parts(self, text: str) -> Iterator[Part]:
        """Yield the parts of a rendered text, with what the marks stand for."""
        for index, part in enumerate(re.split(rf"{self._fence}-(\d+)-{self._fence}", text)):
            if index % 2:
                yield Part(self._hidden[int(part)], True)
            elif part:
                yield Part(part, False)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._specials.sub(self._hide, value)
        if isinstance(value, Mapping):
            return {key: inner if key in _NEVER_TEXT else self._plain(inner) for key, inner in value.items()}
        return [self._plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value

    def _hide(self, match: re.Match[str]) -> str:
        self._hidden.append(match[0])
        return f"{self._fence}-{len(self._hidden) - 1}-{self._fence}"


def turn_end(tokenizer: Tokenizer) -> str | None:
    """Return the special token that the template puts after the assistant's message, if any."""
    message = secrets.token_hex(8)
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": message}]
    try:
        after = _render(tokenizer, messages, reply=False).partition(message)[2].lstrip()
    except TokenizerError:
        return None
    return next(
        (token for token in sorted(tokenizer.special_tokens, key=len, reverse=True) if after.startswith(token)), None
    )


def _render(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], *, reply: bool, marks: tuple[str, str] = ("", "")
) -> str:
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
        compiled = _environment(*marks).from_string(template)
        return str(compiled.render(messages=messages, add_generation_prompt=reply, tools=None, documents=None, **names))
    except TokenizerError:
        raise
    except Exception as error:
        # A template is an untrusted program, which may raise any exception.
        raise TokenizerError(f"the chat template cannot render the conversation: {error}") from None


def _environment(begin: str, end: str) -> Any:
    """Return a sandboxed Jinja environment for chat templates; `begin` and `end` enclose the text that is generated."""
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
        """Template tag that marks the text that the assistant generates, for training."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

        def _marked(self, caller: Callable[[], str]) -> str:
            return f"{begin}{caller()}{end}"

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def to_json(value: Any, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    environment.filters["tojson"] = to_json
    return environment
