"""Paths in command lines, as they are passed to the commands."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

__all__ = ["expanded"]


def expanded(value: Any) -> Any:
    """Replace ``~`` at the beginning of a path, or of paths: shells leave it in quotes and in ``--output=~/runs``.

    A path that begins with a dash gets its directory, so that the commands of messages do not read it as an option.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(expanded(each) for each in value)
    if isinstance(value, str) and value.startswith("-") and value != "-":
        return f"./{value}"
    if isinstance(value, (str, Path)) and re.match(r"~(/|$)", str(value)):
        with contextlib.suppress(RuntimeError):  # the user has no home directory
            return type(value)(Path(value).expanduser())
    return value
