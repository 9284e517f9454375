"""Typed values of GGUF metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Typed"]


@dataclass(frozen=True)
class Typed:
    """A metadata value and the type to write it as: u32, f32, bool, string, or a list: i32s, f32s, strings."""

    type: str
    value: Any
