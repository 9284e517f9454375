"""Evaluation mode for the time of a computation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gptkit.inference.protocol import LanguageModel

__all__ = ["evaluating"]


@contextlib.contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """Dropout off, for as long as the model computes."""
    if not model.training:
        yield
        return
    model.train(False)
    try:
        yield
    finally:
        model.train(True)
