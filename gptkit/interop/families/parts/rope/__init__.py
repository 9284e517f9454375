"""Rotary positions as configurations of transformers describe them, with the keys of old and new versions."""

from gptkit.interop.families.parts.rope.reading import read_rope
from gptkit.interop.families.parts.rope.scaling import read_rotary
from gptkit.interop.families.parts.rope.typed import read_two, read_typed
from gptkit.interop.families.parts.rope.writing import FLAT, as_parameters, by_type, write_rope, write_rotary, write_two

__all__ = [
    "FLAT",
    "as_parameters",
    "by_type",
    "read_rope",
    "read_rotary",
    "read_two",
    "read_typed",
    "write_rope",
    "write_rotary",
    "write_two",
]
