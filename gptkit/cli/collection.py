"""Garbage collection of the command's process: paused while imports create many objects and little garbage."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

__all__ = ["collection_paused", "import_torch"]


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Pause garbage collection in the block."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def import_torch() -> None:
    """Import torch without garbage collections, and exempt what is imported from all later ones.

    torch's modules consist of several hundred thousand objects. To examine them repeatedly, while they are created and
    when the process ends, takes a third of the time of the import.
    """
    if "torch" in sys.modules:
        return
    with collection_paused():
        import torch  # noqa: F401

        gc.freeze()
