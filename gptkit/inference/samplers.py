"""Sampler chains given in Python: specs, names and mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.core.spec import Spec
from gptkit.files import validate_data
from gptkit.kinds.sampler import SamplerSpec

__all__ = ["OneSampler", "SamplerLike", "sampler_chain"]

OneSampler = SamplerSpec | str | Mapping[str, Any]
"""A spec, a name such as ``"greedy"``, or fields such as ``{"name": "top-p", "p": 0.9}``."""

SamplerLike = OneSampler | Sequence[OneSampler]
"""A sampler, or a chain of samplers, in the order in which they are applied."""


class _Chain(Spec):
    sampler: tuple[SamplerSpec, ...]


def sampler_chain(samplers: SamplerLike) -> tuple[SamplerSpec, ...]:
    """Return the validated chain.

    Args:
        samplers: a sampler or a sequence of them.

    Raises:
        SpecError: a name is unknown, or a field is invalid.
    """
    chain = (samplers,) if isinstance(samplers, (SamplerSpec, str, Mapping)) else tuple(samplers)
    if all(isinstance(sampler, SamplerSpec) for sampler in chain):
        return chain  # type: ignore[return-value]
    plain = [each.model_dump(mode="json") if isinstance(each, SamplerSpec) else each for each in chain]
    return validate_data({"sampler": plain}, _Chain).sampler
