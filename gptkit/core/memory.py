"""Conversion of failed memory allocations to errors for the user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from gptkit.core.errors import CapacityError

__all__ = ["explain_exhaustion", "is_exhaustion"]

_MESSAGES = re.compile(r"out of memory|can't allocate memory|not enough memory|Storage size calculation overflowed", re.I)


def is_exhaustion(error: BaseException) -> bool:
    """Return whether an exception is a failed allocation of Python, numpy or PyTorch, on any device."""
    # PyTorch raises a RuntimeError if memory on the CPU is exhausted.
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_MESSAGES.search(str(error))))


@contextmanager
def explain_exhaustion(what: str, hint: str) -> Iterator[None]:
    """Raise failed allocations in the block as a `CapacityError`.

    Args:
        what: what did not fit, as the subject of a sentence.
        hint: which fields or options to change.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_exhaustion(error):
            raise
        lines = str(error).strip().splitlines()
        reason = f": {lines[0].partition(' DefaultCPUAllocator: ')[2] or lines[0]}" if lines else ""
        raise CapacityError(f"{what} does not fit in memory{reason}", hint=hint) from error
