"""Samplers passed from Python: specs, names, mappings, and errors that name the sampler."""

from __future__ import annotations

from typing import Any

import pytest

from gptkit.components.sampler.temperature import TemperatureSpec
from gptkit.components.sampler.top_k import TopKSpec
from gptkit.core.errors import SpecError
from gptkit.inference.samplers import sampler_chain


@pytest.mark.parametrize(
    ("samplers", "names"),
    [
        ((), []),
        ("greedy", ["greedy"]),
        ({"name": "top-k", "k": 3}, ["top-k"]),
        (TemperatureSpec(), ["temperature"]),
        ([TemperatureSpec(), "greedy", {"name": "top-k", "k": 3}], ["temperature", "greedy", "top-k"]),
    ],
)
def test_samplers_and_chains_of_any_form_are_accepted(samplers: Any, names: list[str]) -> None:
    assert [sampler.component_name() for sampler in sampler_chain(samplers)] == names


def test_specs_are_accepted_unchanged() -> None:
    spec = TopKSpec(k=3)
    assert sampler_chain([spec])[0] is spec


@pytest.mark.parametrize(
    ("samplers", "message"),
    [
        ("gredy", r"sampler\.0: unknown sampler 'gredy'; did you mean 'greedy'"),
        (["greedy", {"name": "top-k", "k": -1}], r"sampler\.1\.k: must be at least 1, got -1"),
        ([TemperatureSpec(), {"name": "top-k", "kk": 1}], r"sampler\.1\.kk: sampler 'top-k' has no field 'kk'"),
        ([3], r"sampler\.0: expected a sampler"),
    ],
)
def test_an_invalid_sampler_is_a_located_error(samplers: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        sampler_chain(samplers)
