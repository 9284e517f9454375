"""Random seeds of a training: pure functions of the seed and the step, so that no state is stored."""

from __future__ import annotations

import hashlib

__all__ = ["derive"]


def derive(seed: int, *parts: str | int) -> int:
    """Return the seed for a purpose and a step, below 2⁶³; different parts give unrelated seeds."""
    text = "\0".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
