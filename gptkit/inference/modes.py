"""Temporary evaluation mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gptkit.inference.protocol import LanguageModel

__all__ = ["evaluating"]


@contextlib.contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """Set evaluation mode (no dropout) within the context, and restore the previous mode."""
    if not model.training:
        yield
        return
    model.train(False)
    try:
        yield
    finally:
        model.train(True)
