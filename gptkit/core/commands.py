"""Commands in messages, which users copy into a shell."""

from __future__ import annotations

import shlex
from pathlib import PurePath

__all__ = ["command", "quoted"]


def command(beginning: str, *words: object) -> str:
    """Return a command with words that a shell reads as they are: ``gptkit train --resume 'my runs/gpt'``.

    Args:
        beginning: the command, which is not quoted: ``gptkit train --resume``.
        words: the words after it, such as paths.
    """
    return f"{beginning} {shlex.join(map(_word, words))}"


def quoted(word: object) -> str:
    """Return one word of a command, in quotes if it needs some."""
    return shlex.quote(_word(word))


def _word(word: object) -> str:
    """Return a word; a path that begins with a dash would be read as an option, so that it gets its directory."""
    text = str(word)
    return f"./{text}" if isinstance(word, PurePath) and text.startswith("-") else text
