"""Tokens of text files, read with a run's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gptkit.core.atomic import reading
from gptkit.core.errors import DataError
from gptkit.runs.run import Run
from gptkit.text.decoding import decode_utf8

__all__ = ["file_tokens"]


def file_tokens(run: Run, paths: Sequence[str | Path], max_tokens: int) -> list[int]:
    """Return the token ids of text files, one after the other, without start and end tokens.

    Args:
        run: the run with the tokenizer.
        paths: the files, in UTF-8.
        max_tokens: largest number of tokens; further files are not read.

    Raises:
        DataError: a file does not exist or is not text.
    """
    ids: list[int] = []
    for path in map(Path, paths):
        if not path.is_file():
            raise DataError(f"{path}: file not found", hint="Pass the path of a text file.")
        with reading(path), path.open("rb") as file:
            ids += run.tokenizer.encode("".join(decode_utf8([file.read()], str(path))))
        if len(ids) >= max_tokens:
            break
    return ids[:max_tokens]
