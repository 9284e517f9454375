"""Standard streams that the caller closed (``<&-``, ``>&-``), as some schedulers and daemons do."""

from __future__ import annotations

import os
import sys

__all__ = ["open_closed_streams"]

_MODES = {0: ("r", os.O_RDONLY), 1: ("w", os.O_WRONLY), 2: ("w", os.O_WRONLY)}
_NAMES = {0: "stdin", 1: "stdout", 2: "stderr"}


def open_closed_streams() -> None:
    """Replace closed standard streams by the null device: they are empty, and accept what is written.

    Their file descriptors are occupied, too. A file that is opened later would otherwise have the number of a standard
    stream, and what a library writes to that stream would be written into the file.
    """
    for number, (mode, flag) in _MODES.items():
        descriptor = number
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is assigned, which is this one: those below it are open.
            descriptor = os.open(os.devnull, flag)
        if getattr(sys, _NAMES[number]) is None:
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, _NAMES[number], stream)
