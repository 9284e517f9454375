"""The preset `llama.cpp`.

Shapes: V vocabulary.
"""

from __future__ import annotations

import random
from ctypes import c_float, c_int32, c_size_t, c_uint32
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gptkit.components.sampler.llama_cpp import LlamaCppSpec
from gptkit.components.sampler.temperature import TemperatureSpec
from gptkit.components.sampler.top_k import TopKSpec
from gptkit.inference import generate
from gptkit.kinds.sampler import SamplerContext, expanded
from tests.support import llama_cpp
from tests.support.fakes import Bytes, Recurrent

VOCAB = 80


def names(**fields: Any) -> list[str]:
    return [spec.name for spec in LlamaCppSpec(**fields).expanded()]


def test_preset_expands_to_the_samplers_that_have_an_effect_in_the_order_of_llama_cpp() -> None:
    assert names() == ["top-k", "top-p", "min-p", "temperature"]
    everything = {
        "repeat_penalty": 1.2,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
        "dry_multiplier": 0.8,
        "top_n_sigma": 1.0,
        "typical_p": 0.9,
        "xtc_probability": 0.5,
        "adaptive_target": 0.5,
    }
    assert names(**everything) == [
        *(f"{name}-penalty" for name in ("repetition", "frequency", "presence")),
        *("dry", "top-n-sigma", "top-k", "typical", "top-p", "min-p", "xtc", "temperature", "adaptive-p"),
    ]
    assert names(mirostat=1) == ["temperature", "mirostat"]
    assert names(mirostat=2, top_k=3) == ["temperature", "mirostat-v2"]
    assert names(temperature=0) == ["greedy"]
    assert names(temperature=0, xtc_probability=1.0) == ["top-k", "top-p", "min-p", "xtc", "greedy"]
    assert names(temperature=1, top_k=0, top_p=1, min_p=0) == []
    assert names(dynatemp_range=0.2)[-1] == "dynamic-temperature"
    assert names(repeat_penalty=1.2, repeat_last_n=0) == names()


def test_default_values_are_those_of_llama_cpp() -> None:
    """llama.cpp's defaults as its Python package has them."""
    xllamacpp = pytest.importorskip("xllamacpp")
    defaults = xllamacpp.CommonParams().sampling
    differing = {"temperature": "temp", "typical_p": "typ_p", "repeat_last_n": "penalty_last_n"}
    differing |= {"repeat_penalty": "penalty_repeat", "presence_penalty": "penalty_present"}
    differing |= {"frequency_penalty": "penalty_freq"}
    spec, compared = LlamaCppSpec(), 0
    for field in LlamaCppSpec.model_fields:
        name = differing.get(field, field)
        if field != "name" and hasattr(defaults, name):
            actual, expected = getattr(spec, field), getattr(defaults, name)
            if field == "dry_sequence_breakers":
                assert list(actual) == list(expected)
            else:
                assert actual == pytest.approx(expected), field
            compared += 1
    assert compared >= 18


def test_chain_equals_that_of_llama_cpp() -> None:
    spec = LlamaCppSpec(repeat_penalty=1.2, typical_p=0.9, xtc_probability=1.0, xtc_threshold=0.15, top_n_sigma=2.5)
    draw, n_different = random.Random(0), 0
    for row in range(1000):
        logits_V = torch.randn(VOCAB, generator=torch.Generator().manual_seed(row)) * (1 + row % 7)
        history = [draw.randrange(VOCAB) for _ in range(80)]
        chain = [
            llama_cpp.Sampler("penalties", c_int32(VOCAB), c_int32(64), c_float(1.2), c_float(0), c_float(0)),
            llama_cpp.Sampler("top_n_sigma", c_float(2.5)),
            llama_cpp.Sampler("top_k", c_int32(40)),
            llama_cpp.Sampler("typical", c_float(0.9), c_size_t(1)),
            llama_cpp.Sampler("top_p", c_float(0.95), c_size_t(1)),
            llama_cpp.Sampler("min_p", c_float(0.05), c_size_t(1)),
            llama_cpp.Sampler("xtc", c_float(1.0), c_float(0.15), c_size_t(1), c_uint32(0)),
            llama_cpp.Sampler("temp", c_float(0.8)),
        ]
        for token in history:
            chain[0].accept(token)
        expected_V = logits_V
        for sampler in chain:
            expected_V = sampler(expected_V)[0]
        actual_V = spec.build(SamplerContext(VOCAB, 1, streams=("0",)))(logits_V[None], [history])[0]
        if torch.equal(actual_V > -torch.inf, expected_V > -torch.inf):
            torch.testing.assert_close(actual_V, expected_V, rtol=1e-4, atol=1e-4)
        else:
            n_different += 1
    assert n_different <= 3


def test_preset_and_its_samplers_generate_the_same_text() -> None:
    options: dict[str, Any] = {"max_new_tokens": 30, "seed": 3, "stop_ids": ()}
    spec = LlamaCppSpec(temperature=1.3, top_k=20, xtc_probability=0.5, dry_multiplier=0.8)
    texts = [
        generate(Recurrent(context_length=64), Bytes(), ["a", "b"], sampler=sampler, **options)
        for sampler in ([spec], spec.expanded(), {"name": "llama.cpp", **spec.model_dump(exclude={"name"})})
    ]
    assert [result.ids for result in texts[0]] == [result.ids for result in texts[1]]
    assert [result.ids for result in texts[0]] == [result.ids for result in texts[2]]
    assert expanded([TopKSpec(k=3), LlamaCppSpec()])[1:] == LlamaCppSpec().expanded()
    assert expanded([TemperatureSpec()]) == (TemperatureSpec(),)


def test_temperature_zero_is_greedy() -> None:
    options: dict[str, Any] = {"max_new_tokens": 20, "stop_ids": ()}
    zero, greedy = (
        generate(Recurrent(context_length=64), Bytes(), "a", sampler=sampler, **options)[0].ids
        for sampler in (LlamaCppSpec(temperature=0), "greedy")
    )
    assert zero == greedy


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temperature": 1e-9}, "must be 0 .the most likely token. or at least 0.000001"),
        ({"temperature": -1}, "greater than or equal to 0"),
        ({"top_k": -1}, "greater than or equal to 0"),
        ({"mirostat": 3}, "0, 1 or 2"),
        ({"dry_sequence_breakers": [""]}, "at least 1 character"),
        ({"temp": 0.8}, "temp"),
    ],
)
def test_invalid_fields_are_rejected(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LlamaCppSpec.model_validate({"name": "llama.cpp", **fields})
