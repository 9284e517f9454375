"""Random numbers of samplers that draw: one generator for each row."""

from __future__ import annotations

import random

from gptkit.kinds.sampler import SamplerContext

__all__ = ["row_generators"]


def row_generators(context: SamplerContext) -> list[random.Random]:
    """Return a random generator for each row, seeded by the context's streams; equal ones if it has none."""
    return [random.Random(stream) for stream in context.streams or ("",) * context.batch]
