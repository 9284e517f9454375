"""The samplers and the decoding of a call: its own, or those of the run's spec."""

from __future__ import annotations

from typing import Any

from gptkit.inference.decodings import DecodingLike, decoding_spec
from gptkit.inference.samplers import SamplerLike, sampler_chain
from gptkit.kinds.sampler import SamplerSpec
from gptkit.runs.spec import ExperimentSpec

__all__ = ["chain_of", "options_of"]


def chain_of(spec: ExperimentSpec, sampler: SamplerLike | None) -> tuple[SamplerSpec, ...]:
    """Return the samplers of a call: the given ones, or else those of the spec."""
    return spec.sampler if sampler is None else sampler_chain(sampler)


def options_of(spec: ExperimentSpec, sampler: SamplerLike | None, decoding: DecodingLike | None) -> dict[str, Any]:
    """Return the arguments `sampler` and `decoding` of `gptkit.inference.generate`.

    A search that is asked for, without samplers, is one in the model's distribution.
    """
    if decoding is None:
        return {"sampler": chain_of(spec, sampler), "decoding": spec.decoding}
    search = decoding_spec(decoding)
    chain = () if sampler is None and not search.samples else chain_of(spec, sampler)
    return {"sampler": chain, "decoding": search}
