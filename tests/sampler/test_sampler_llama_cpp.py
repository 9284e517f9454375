"""Samplers against those of llama.cpp, on 1,000 rows of random logits.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from ctypes import c_float, c_int32, c_size_t, c_uint32
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.registry import default_registry
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from tests.support import llama_cpp

VOCAB, ROWS = 67, 1000


def spec(name: str, **fields: Any) -> SamplerSpec:
    made = default_registry().component("sampler", name).model_validate({"name": name, **fields})
    assert isinstance(made, SamplerSpec)
    return made


def tokenizer() -> Tokenizer:
    made = default_registry().component("tokenizer", "byte").model_validate({"name": "byte"})
    assert isinstance(made, TokenizerSpec)
    return made.fit(iter(()))


def random_logits() -> Tensor:
    """Rows of different spread, a third of them with many excluded tokens, one with a single token left."""
    generator = torch.Generator().manual_seed(0)
    logits_BV = torch.randn(ROWS, VOCAB, generator=generator) * torch.logspace(-1.5, 1.2, ROWS)[:, None]
    hidden_BV = torch.rand(ROWS, VOCAB, generator=generator) < 0.7
    hidden_BV[torch.arange(ROWS) % 3 > 0] = False
    hidden_BV[:, 5] = False
    logits_BV[hidden_BV] = -torch.inf
    logits_BV[0, torch.arange(VOCAB) != 5] = -torch.inf
    return logits_BV


def pointwise(name: str, *arguments: Any) -> Callable[[], llama_cpp.Sampler]:
    return lambda: llama_cpp.Sampler(name, *arguments)


f, i, n, u = c_float, c_int32, c_size_t, c_uint32
CASES: list[tuple[str, dict[str, Any], Callable[[], llama_cpp.Sampler]]] = [
    *[("top-k", {"k": k}, pointwise("top_k", i(k))) for k in (1, 7, 40, 100)],
    *[("top-p", {"p": p}, pointwise("top_p", f(p), n(1))) for p in (0.1, 0.6, 0.95)],
    *[("min-p", {"p": p}, pointwise("min_p", f(p), n(1))) for p in (0.01, 0.1, 0.7)],
    *[("typical", {"p": p}, pointwise("typical", f(p), n(1))) for p in (0.1, 0.6, 0.95)],
    *[("top-n-sigma", {"n": k}, pointwise("top_n_sigma", f(k))) for k in (0.3, 1.0, 2.0)],
    *[("temperature", {"value": t}, pointwise("temp", f(t))) for t in (0.3, 1.7)],
    *[
        ("dynamic-temperature", {"value": t, "range": r, "exponent": e}, pointwise("temp_ext", f(t), f(r), f(e)))
        for t, r, e in ((1.0, 0.5, 1.0), (0.8, 0.7, 2.0), (1.5, 0.2, 0.5))
    ],
    *[("xtc", {"threshold": t, "probability": 1.0}, pointwise("xtc", f(1), f(t), n(1), u(0))) for t in (0.02, 0.1, 0.3)],
]


def borderline(actual_BV: Tensor, expected_BV: Tensor) -> Tensor:
    """Rows that differ by one token only: the sums of llama.cpp are in fp32, and may differ at the limit."""
    return ((actual_BV > -torch.inf) ^ (expected_BV > -torch.inf)).sum(-1) <= 1


@pytest.mark.parametrize(
    ("name", "fields", "external"), CASES, ids=[f"{name}-{'-'.join(map(str, fields.values()))}" for name, fields, _ in CASES]
)
def test_equals_llama_cpp(name: str, fields: dict[str, Any], external: Callable[[], llama_cpp.Sampler]) -> None:
    logits_BV, sampler = random_logits(), external()
    actual_BV = spec(name, **fields).build(SamplerContext(VOCAB, ROWS))(logits_BV, [[]] * ROWS)
    expected_BV = torch.stack([sampler(logits_V)[0] for logits_V in logits_BV])
    different_B = ((actual_BV > -torch.inf) != (expected_BV > -torch.inf)).any(-1)
    assert different_B.sum() <= 2
    assert borderline(actual_BV, expected_BV).all()
    torch.testing.assert_close(actual_BV[~different_B], expected_BV[~different_B], rtol=2e-5, atol=2e-5)


def test_xtc_is_applied_with_its_probability() -> None:
    """llama.cpp draws from another generator, so the frequencies are compared with the definition."""
    logits_BV = torch.tensor([3.0, 2.5, 0.0]).expand(4000, -1)
    streams = tuple(str(row) for row in range(4000))
    for probability in (0.0, 0.3, 1.0):
        sampler = spec("xtc", threshold=0.2, probability=probability).build(SamplerContext(3, 4000, streams=streams))
        share = float((sampler(logits_BV, [[]] * 4000)[:, 0] == -torch.inf).float().mean())
        assert abs(share - probability) < 5 * math.sqrt(probability * (1 - probability) / 4000) + 1e-9


@pytest.mark.parametrize(("tau", "eta"), [(5.0, 0.1), (2.0, 0.3), (3.0, 0.5)])
@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_equals_llama_cpp_over_a_text(version: int, tau: float, eta: float) -> None:
    """The external sampler draws the tokens; both follow their surprisal."""
    arguments = (i(VOCAB), u(3), f(tau), f(eta), i(20)) if version == 1 else (u(3), f(tau), f(eta))
    fields = {"tau": tau, "eta": eta, **({"m": 20} if version == 1 else {})}
    rows_BV = random_logits()[torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))]
    if version == 1:
        # llama.cpp's k is a 32-bit int, which overflows on flat rows and after many unsurprising ones, and then keeps one.
        spread_B = torch.stack([logits_V[logits_V > -torch.inf].std(correction=0) for logits_V in rows_BV])
        rows_BV = rows_BV[spread_B > 1.2]
    n_different = 0
    for text_TV in rows_BV.split(10 if version == 1 else ROWS):
        external = llama_cpp.Sampler("mirostat" if version == 1 else "mirostat_v2", *arguments)
        sampler = spec("mirostat" if version == 1 else "mirostat-v2", **fields).build(SamplerContext(VOCAB, 1))
        for logits_V in text_TV:
            expected_V, token = external(logits_V)
            actual_V = sampler(logits_V[None], [[]])[0]
            n_different += not torch.equal(actual_V, expected_V)
            assert abs(int((actual_V > -torch.inf).sum()) - int((expected_V > -torch.inf).sum())) <= 1
            sampler.chosen([token], [float(expected_V.log_softmax(-1)[token])])
    assert n_different <= 2


@pytest.mark.parametrize(("target", "decay"), [(0.5, 0.9), (0.2, 0.5), (0.9, 0.99), (0.3, 0.0)])
def test_adaptive_p_equals_llama_cpp_over_a_text(target: float, decay: float) -> None:
    external = llama_cpp.Sampler("adaptive_p", f(target), f(decay), u(3))
    sampler = spec("adaptive-p", target=target, decay=decay).build(SamplerContext(VOCAB, 1))
    for logits_V in random_logits()[torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))]:
        expected_V, token = external(logits_V)
        actual_V = sampler(logits_V[None], [[]])[0]
        torch.testing.assert_close(actual_V, expected_V, rtol=1e-4, atol=1e-4)
        external.accept(token)
        sampler.chosen([token], [0.0])


@pytest.mark.parametrize(
    ("multiplier", "base", "allowed", "window", "breakers"),
    [
        (0.8, 1.75, 2, 1000, ["\n", ":"]),
        (2.0, 1.2, 1, 25, ["\n"]),
        (1.0, 3.0, 3, 1000, ["ab", "c", "dcb"]),
        (0.5, 1.0, 2, 1000, ["f"]),
    ],
)
def test_dry_equals_llama_cpp(multiplier: float, base: float, allowed: int, window: int, breakers: list[str]) -> None:
    own = tokenizer()
    fields = {"multiplier": multiplier, "base": base, "allowed_length": allowed, "breakers": breakers, "window": window}
    sampler = spec("dry", **fields).build(SamplerContext(VOCAB + 60, 1, own))
    draw = random.Random(0)
    n_penalized = 0
    for row in range(ROWS):
        letters = "abcdef\n:" if row % 2 else "ef"
        text = "".join(draw.choices(letters, k=draw.randint(0, 60)))
        history = own.encode(text * draw.randint(1, 3) if row % 3 else text)
        external = llama_cpp.dry(multiplier, base, allowed, window, [own.encode(each) for each in breakers])
        for token in history:
            external.accept(token)
        logits_V = torch.randn(VOCAB + 60, generator=torch.Generator().manual_seed(row))
        expected_V = external(logits_V)[0]
        actual_V = sampler(logits_V[None], [history])[0]
        torch.testing.assert_close(actual_V, expected_V, rtol=1e-5, atol=1e-5)
        n_penalized += bool((expected_V != logits_V).any())
    assert n_penalized > 300


@pytest.mark.parametrize(("repeat", "frequency", "presence", "window"), [(1.3, 0.0, 0.0, 64), (1.1, 0.4, -0.7, 9)])
def test_penalties_equal_llama_cpp(repeat: float, frequency: float, presence: float, window: int) -> None:
    chain: list[Sampler] = [
        spec(f"{name}-penalty", penalty=penalty, window=window).build(SamplerContext(VOCAB, 1))
        for name, penalty in (("repetition", repeat), ("frequency", frequency), ("presence", presence))
    ]
    draw = random.Random(0)
    for logits_V in random_logits():
        external = llama_cpp.Sampler("penalties", i(VOCAB), i(window), f(repeat), f(frequency), f(presence))
        history = [draw.randrange(VOCAB) for _ in range(draw.randint(0, 90))]
        for token in history:
            external.accept(token)
        actual_1V = logits_V[None]
        for sampler in chain:
            actual_1V = sampler(actual_1V, [history])
        torch.testing.assert_close(actual_1V[0], external(logits_V)[0], rtol=1e-5, atol=1e-5)
