"""JSON Lines."""

from __future__ import annotations

import codecs
import functools
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from gptkit.components.data._files import (
    Paths,
    Patterns,
    caution_ignored,
    conversion_command,
    find_files,
    fingerprint_files,
    shown,
)
from gptkit.components.data._opening import COMPRESSED, open_file
from gptkit.components.data._records import REMEDY, array_remedy, remedy
from gptkit.core.errors import DataError
from gptkit.core.spec import fail
from gptkit.kinds.data import DataSpec, Document
from gptkit.text.decoding import require_text
from gptkit.text.encodings import encoding_remedy

_log = logging.getLogger("gptkit")


class JsonLinesDataSpec(DataSpec):
    """JSON Lines: one JSON object per line, with a document in one of its fields; UTF-8.

    Files may be compressed with gzip, bzip2, xz or zstd.

    Blank lines and empty texts are skipped.

    With `prompt_field` a line has a prompt and a text, such as a question and its answer. The document is the prompt,
    `prompt_end`, and the text. The model is trained on the text only: the prompt's tokens are excluded from the
    loss, in training and in evaluation, unless `mask_prompt` is false. Lines whose text is empty are skipped, prompt
    included.

    With `messages_field` a line has a conversation: a list of objects with `role` (system, user, assistant) and `content`.
    The tokenizer's chat template renders it, and the model is trained on the assistant's turns, including their end-of-turn
    token; everything else is excluded from the loss, unless `mask_prompt` is false. Objects with `from` (system, human, gpt)
    and `value` are read as well, as ShareGPT writes them. A content may be a list of parts of the type `text`.
    """

    name: Literal["jsonl"] = "jsonl"
    path: Paths = Field(("data",), description="A file, a directory, a glob such as corpus/*.jsonl, or a list of them.")
    patterns: Patterns = Field(
        tuple(f"*{name}{suffix}" for suffix in COMPRESSED for name in (".jsonl", ".ndjson")),
        description="Patterns for the names of files in a directory, at any depth.",
    )
    field: str = Field("text", min_length=1, description="Field with the text.")
    prompt_field: str | None = Field(None, min_length=1, description="Field with a prompt, which precedes the text.")
    prompt_end: str = Field("", description="Text between prompt and text, such as a line feed; part of the prompt.")
    messages_field: str | None = Field(
        None, min_length=1, description="Field with a conversation, in place of `field`; for example messages."
    )
    mask_prompt: bool = Field(
        True, description="Exclude the prompt from the loss; in a conversation, everything except the assistant's turns."
    )
    skip_bad_lines: bool = Field(
        False, description="Skip invalid lines instead of raising an error; a warning gives their number in each file."
    )

    @model_validator(mode="after")
    def _prompt_settings(self) -> JsonLinesDataSpec:
        if self.prompt_field is None and self.prompt_end:
            fail("it ends a prompt, but no prompt is named; set `prompt_field` too", ("prompt_end",), self.prompt_end)
        if self.prompt_field is None and self.messages_field is None and not self.mask_prompt:
            message = "it concerns prompts, but no prompt is named; set `prompt_field` or `messages_field` too"
            fail(message, ("mask_prompt",), self.mask_prompt)
        if self.messages_field is not None and self.prompt_field is not None:
            fail("a conversation contains its prompts; name one of both", ("prompt_field",), self.prompt_field)
        if self.prompt_field == self.field:
            fail("prompt and text are the same field; name two", ("prompt_field",), self.prompt_field)
        return self

    def cautions(self, base: Path) -> Iterator[str]:
        return caution_ignored(self, self.path, self.patterns, base)

    def documents(self, base: Path) -> Iterator[Document]:
        for path in find_files(self.path, self.patterns, base):
            source = shown(path, base)
            number = skipped = objects = 0
            first = ""
            with open_file(path) as file:
                for number, line in enumerate(file, start=1):
                    if number == 1:
                        line = line.removeprefix(codecs.BOM_UTF8)
                        if line.lstrip().startswith(b"[") and not self.skip_bad_lines:
                            begin = line.lstrip()[1:].lstrip() or next(file, b"").lstrip()
                            raise DataError(
                                f"{path}:1: a JSON array, where each line should be an object",
                                hint=array_remedy(path, begin, self.field),
                            )
                    if not line.strip():
                        continue
                    try:
                        value = None
                        value = _object(line)
                        objects += 1
                        if self.messages_field is not None:
                            messages = _messages(value, self.messages_field)
                            content = "\n".join(message.get("content") or "" for message in messages)
                            yield Document(content, f"{source}:{number}", messages=messages, mask_prompt=self.mask_prompt)
                            continue
                        text = _text(value, self.field)
                        prompt = "" if self.prompt_field is None else _text(value, self.prompt_field) + self.prompt_end
                    except ValueError as error:
                        if self.skip_bad_lines:
                            first = first or f"{source}:{number}: {error}"
                            skipped += 1
                            continue
                        if number == 1:
                            require_text(line, str(path), conversion_command(path))
                        first_one = objects == (0 if value is None else 1)
                        hint = remedy(path, line, value, self._own_fields()) if first_one else REMEDY
                        if isinstance(error.__cause__, UnicodeDecodeError):
                            hint = encoding_remedy(error.__cause__, conversion_command(path))
                            hint = f"If only few lines are like this, set `skip_bad_lines: true` to skip them. {hint}"
                        raise DataError(f"{path}:{number}: {error}", hint=hint) from None
                    if text.strip():
                        masked = ((0, len(prompt)),) if prompt and self.mask_prompt else ()
                        yield Document(prompt + text, f"{source}:{number}", masked=masked)
            if skipped:
                _warn(source, skipped, number, first)

    def _own_fields(self) -> dict[str, str]:
        """Return the names of the fields that are read from a line, by the names of the settings."""
        if self.messages_field is not None:
            return {"messages_field": self.messages_field}
        prompt = {} if self.prompt_field is None else {"prompt_field": self.prompt_field}
        return {"field": self.field, **prompt}

    def fingerprint(self, base: Path) -> str:
        files = find_files(self.path, self.patterns, base)
        # Unchanged without prompts, so that previously prepared tokens are reused.
        prompts: tuple[Any, ...] = ()
        if self.prompt_field is not None:
            prompts = (self.prompt_field, self.prompt_end, self.mask_prompt)
        if self.messages_field is not None:
            prompts = ("messages", self.messages_field, self.mask_prompt)
        return fingerprint_files(files, "jsonl", self.field, self.skip_bad_lines, *prompts)


@functools.cache
def _warn(source: str, skipped: int, lines: int, first: str) -> None:
    """Warn of skipped lines, once: a corpus is read several times."""
    _log.warning("%s: %d of %d lines are skipped, the first one: %s", source, skipped, lines, first)


def _object(line: bytes) -> dict[str, Any]:
    """Return the object of a line, or raise a `ValueError`."""
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} of the line is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: it nests too deeply") from None
    except ValueError:  # of Python's limit on conversions of texts to integers
        raise ValueError(f"a whole number of more than {sys.get_int_max_str_digits():,} digits cannot be read") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _messages(value: dict[str, Any], field: str) -> tuple[dict[str, Any], ...]:
    """Return the conversation in a field of an object, or raise a `ValueError`."""
    if field not in value:
        raise ValueError(f"no field {field!r}; there is {', '.join(map(repr, value)) or 'none'}")
    messages = value[field]
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"field {field!r} is not a list of messages")
    messages = [_message(message) for message in messages]
    for number, message in enumerate(messages, start=1):
        where = f"message {number} of {field!r}"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"{where} is not an object with a 'role', or with 'from' ({', '.join(_ROLES)}) and 'value'")
        if message["role"] == "assistant" and message.get("weight") == 0:
            raise ValueError(f"{where} has the weight 0, and a turn of the assistant cannot be excluded from the loss")
        if message.get("content") is not None or "tool_calls" not in message:
            try:
                _text(message, "content")
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError(f"field {field!r} has no message of the role 'assistant', which is what is learned")
    return tuple(messages)


_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "observation": "tool",
}
"""Roles by the names of ShareGPT."""


def _message(message: Any) -> Any:
    """Return a message of ShareGPT, with `from` and `value`, as one with `role` and `content`; parts of text as one text."""
    if not isinstance(message, dict):
        return message
    if "role" in message:
        parts = message.get("content")
        if not (isinstance(parts, list) and parts and all(map(_is_text, parts))):
            return message
        return {**message, "content": "\n".join(part["text"] for part in parts)}
    role = _ROLES.get(str(message.get("from")))
    weight = {"weight": 0} if message.get("weight") == 0 else {}
    return message if role is None else {"role": role, "content": message.get("value"), **weight}


def _is_text(part: Any) -> bool:
    """Return whether a part of a message's content is one of text, as the API of OpenAI has them."""
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _text(value: dict[str, Any], field: str) -> str:
    """Return a field of an object, or raise a `ValueError`."""
    if field not in value:
        raise ValueError(f"no field {field!r}; there is {', '.join(map(repr, value)) or 'none'}")
    text = value[field]
    if not isinstance(text, str):
        raise ValueError(f"field {field!r} is not a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"field {field!r} contains a lone surrogate, which is not a valid character") from None
    return text
