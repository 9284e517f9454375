"""Messages of `gptkit chat`: from the terminal, from a pipe, and from a file that `/save` wrote."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from gptkit.cli import console
from gptkit.core.atomic import reading
from gptkit.core.errors import GptkitError

__all__ = ["piped", "read_messages", "typed"]

_MARK = '"""'

_HINT = "A list of messages, each with role (system, user, assistant) and content, as /save writes it."


def read_messages(path: Path) -> tuple[str | None, list[dict[str, str]]]:
    """Return the system message, and the messages of the user and the model in turns.

    Raises:
        GptkitError: the file does not exist, or does not hold such messages.
        FileError: the file cannot be read.
    """
    if not path.is_file():
        raise GptkitError(f"{path} not found", hint="/save FILE writes the conversation.")
    with reading(path):
        data = path.read_bytes()
    try:
        messages = json.loads(data)
    except ValueError as error:
        raise GptkitError(f"{path} does not hold JSON: {error}", hint=_HINT) from None
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        raise GptkitError(f"{path} does not hold messages", hint=_HINT)
    system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise GptkitError(f"{path}: messages of the user and replies do not alternate", hint=_HINT)
    return system, [{"role": message["role"], "content": message["content"]} for message in messages]


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str) and isinstance(value.get("role"), str)


def typed() -> Iterator[str]:
    """Yield messages typed in a terminal, with line editing and history."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() uses it once it is imported)
    while True:
        try:
            lines = _lines()
        except EOFError:
            console.write("\n")
            return
        except KeyboardInterrupt:
            console.write("\n")
            console.note("Ctrl-D or /exit ends the conversation", style="dim")
            continue
        message = "\n".join(lines)
        if message.strip():
            yield message


def _lines() -> list[str]:
    """Read one message: a line, lines that end with a backslash, or all lines between two marks."""
    lines = [_line("> ")]
    if lines[0].lstrip().startswith(_MARK):
        lines[0] = lines[0].lstrip().removeprefix(_MARK)
        while not lines[-1].rstrip().endswith(_MARK):
            lines.append(_line("  "))
        lines[-1] = lines[-1].rstrip().removesuffix(_MARK)
        return [line for index, line in enumerate(lines) if line or 0 < index < len(lines) - 1]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(_line("  "))
    return lines


def _line(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    # stdout is redirected and receives the replies only.
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return input()


def piped() -> Iterator[str]:
    """Yield messages from a file or a pipe, one per line; skip empty lines."""
    from gptkit.text.decoding import decode_utf8

    for line in decode_utf8(sys.stdin.buffer, "stdin"):
        if line.strip():
            yield line.rstrip("\n")
