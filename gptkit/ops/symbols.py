"""Sizes that vary in a program of torch.export."""

from __future__ import annotations

import torch

__all__ = ["varies"]


def varies(size: object) -> bool:
    """Return whether a size is a symbol; comparing it would restrict the program to sizes with the same result."""
    return isinstance(size, torch.SymInt)
