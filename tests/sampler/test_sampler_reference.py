"""Samplers against those of transformers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as reference

from gptkit.core.registry import default_registry
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

VOCAB, ROWS = 97, 250

CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("temperature", {"value": 0.3}, reference.TemperatureLogitsWarper(0.3)),
    ("temperature", {"value": 2.5}, reference.TemperatureLogitsWarper(2.5)),
    *[("top-k", {"k": k}, reference.TopKLogitsWarper(k)) for k in (1, 2, 7, 96, 97, 500)],
    *[("top-p", {"p": p}, reference.TopPLogitsWarper(p)) for p in (0.01, 0.3, 0.6, 0.9, 0.999, 1.0)],
    *[("min-p", {"p": p}, reference.MinPLogitsWarper(p)) for p in (0.001, 0.05, 0.5, 1.0)],
    *[("repetition-penalty", {"penalty": p}, reference.RepetitionPenaltyLogitsProcessor(p)) for p in (0.5, 1.0, 1.3, 10.0)],
    *[("typical", {"p": p}, reference.TypicalLogitsWarper(p)) for p in (0.05, 0.4, 0.9, 0.99)],
    *[("epsilon", {"p": p}, reference.EpsilonLogitsWarper(p)) for p in (1e-4, 0.01, 0.2, 0.9)],
    *[("eta", {"epsilon": p}, reference.EtaLogitsWarper(p)) for p in (1e-4, 0.01, 0.2, 0.9)],
    *[("no-repeat-ngram", {"n": n}, reference.NoRepeatNGramLogitsProcessor(n)) for n in (1, 2, 3)],
    ("suppress-tokens", {"tokens": (3, 50)}, reference.SuppressTokensLogitsProcessor([3, 50])),
    ("logit-bias", {"bias": {4: -2.5, 9: 7.0}}, reference.SequenceBiasLogitsProcessor({(4,): -2.5, (9,): 7.0})),
]


def spec(name: str, **fields: Any) -> SamplerSpec:
    cls = default_registry().component("sampler", name)
    made = cls.model_validate({"name": name, **fields})
    assert isinstance(made, SamplerSpec)
    return made


def random_case(seed: int, scale: float, *, masked: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_BV = torch.randn(ROWS, VOCAB, generator=generator) * scale
    if masked:
        shares_B1 = torch.tensor([[0.0], [0.2], [0.5], [0.9], [0.9]]).repeat(ROWS // 5, 1)
        hidden_BV = torch.rand(ROWS, VOCAB, generator=generator) < shares_B1
        hidden_BV[:, 10] = False
        logits_BV[hidden_BV] = -torch.inf
        logits_BV[4::5, torch.arange(VOCAB) != 10] = -torch.inf  # all but one
    # Few different tokens, so that sequences repeat.
    history_BT = torch.randint(0, 6, (ROWS, 40), generator=generator)
    return logits_BV, history_BT


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("name", "fields", "expected"), CASES, ids=[f"{n}-{next(iter(f.values()))}" for n, f, _ in CASES])
def test_equals_transformers(name: str, fields: dict[str, Any], expected: Any, masked: bool) -> None:
    for seed, scale in enumerate((0.3, 1.0, 3.0, 10.0)):
        logits_BV, history_BT = random_case(seed, scale, masked=masked)
        actual = spec(name, **fields).build(SamplerContext(VOCAB, batch=ROWS))(logits_BV, history_BT.tolist())
        # In fp64, so that no rounding decides at a limit.
        expected_BV = expected(history_BT, logits_BV.double()).float()
        emptied_B1 = (expected_BV == -torch.inf).all(dim=-1, keepdim=True)
        # Where transformers excludes all tokens, gptkit keeps the row unchanged.
        expected_BV = torch.where(emptied_B1, logits_BV, expected_BV)
        # Sums in fp32 decide otherwise in rows whose sum is at the limit.
        n_different_B = (~torch.isclose(actual, expected_BV, rtol=1e-5, atol=1e-5)).sum(dim=-1)
        assert n_different_B.max() <= 1
        assert (n_different_B > 0).sum() <= 2


@pytest.mark.parametrize("p", [0.2, 0.9, 0.99, 0.9999])
def test_top_p_of_a_large_vocabulary(p: float) -> None:
    """More candidates are sorted if the first do not reach p."""
    logits_BV = torch.randn(3, 20_000, generator=torch.Generator().manual_seed(1)) * torch.tensor([[0.1], [1.0], [8.0]])
    actual = spec("top-p", p=p).build(SamplerContext(20_000, 3))(logits_BV, [[]] * 3)
    sorted_BV = logits_BV.double().sort(dim=-1, descending=True)
    p_BV = sorted_BV.values.softmax(dim=-1)
    n_kept = ((p_BV.cumsum(dim=-1) - p_BV) < p).sum(dim=-1)
    off = ((actual > -torch.inf).sum(dim=-1) - n_kept).abs()
    assert (off <= 1 + n_kept * 1e-4).all()  # sums in fp32 and fp64 may differ near the boundary
    for row in range(3):
        kept = actual[row] > -torch.inf
        assert logits_BV[row][kept].min() > logits_BV[row][~kept].max()


@pytest.mark.parametrize("p", [0.2, 0.9, 0.99, 0.9999])
def test_typical_of_a_large_vocabulary(p: float) -> None:
    """More candidates are sorted if the first do not reach p."""
    logits_BV = torch.randn(3, 20_000, generator=torch.Generator().manual_seed(1)) * torch.tensor([[0.1], [1.0], [8.0]])
    actual = spec("typical", p=p).build(SamplerContext(20_000, 3))(logits_BV, [[]] * 3)
    log_p_BV = logits_BV.double().log_softmax(dim=-1)
    distance_BV = (-log_p_BV + (log_p_BV.exp() * log_p_BV).sum(dim=-1, keepdim=True)).abs()
    p_BV = log_p_BV.exp().gather(-1, distance_BV.argsort(dim=-1))
    n_kept = ((p_BV.cumsum(dim=-1) - p_BV) < p).sum(dim=-1)
    off = ((actual > -torch.inf).sum(dim=-1) - n_kept).abs()
    assert (off <= 1 + n_kept * 1e-4).all()


def test_min_length_equals_transformers() -> None:
    class Ends:
        end_id = 7

    context = SamplerContext(VOCAB, 2, Ends())  # type: ignore[arg-type]
    actual = spec("min-length", tokens=3).build(context)
    external = reference.MinNewTokensLengthLogitsProcessor(4, 3, 7)
    logits_BV, history_BT = random_case(0, 1.0, masked=False)
    for written in range(5):
        history = history_BT[:2, : 4 + written]
        expected = external(history, logits_BV[:2].clone())
        torch.testing.assert_close(actual(logits_BV[:2], history.tolist()), expected)
        assert bool((expected[:, 7] == -torch.inf).all()) == (written < 3)


def test_min_length_follows_its_rows() -> None:
    class Ends:
        end_id = 0

    sampler = spec("min-length", tokens=2).build(SamplerContext(3, 2, Ends()))  # type: ignore[arg-type]
    sampler(torch.zeros(2, 3), [[1], [1, 1, 1]])
    sampler.reorder([1])
    assert sampler(torch.zeros(1, 3), [[1, 1, 1, 2]])[0, 0] == -torch.inf
    assert sampler(torch.zeros(1, 3), [[1, 1, 1, 2, 2]])[0, 0] == 0


def test_top_n_sigma_equals_its_formula() -> None:
    logits = torch.tensor([[1.0, 3.0, 5.0, -torch.inf, 7.0]])
    # mean 4, deviations 3 1 1 3: σ = √5 ≈ 2.236
    for n, kept in ((0.5, [7.0]), (0.9, [5.0, 7.0]), (1.8, [3.0, 5.0, 7.0]), (3.0, [1.0, 3.0, 5.0, 7.0])):
        out = spec("top-n-sigma", n=n).build(SamplerContext(5))(logits, [[]])
        assert out[out > -torch.inf].tolist() == kept


def test_penalties_equal_their_formulas() -> None:
    logits = torch.tensor([[2.0, -2.0, 0.0, 1.0], [2.0, -2.0, 0.0, 1.0]])
    history = [[0, 1, 1, 0, 1, 9], [3]]
    cases = {
        "repetition-penalty": [[1.0, -4.0, 0.0, 1.0], [2.0, -2.0, 0.0, 0.5]],
        "frequency-penalty": [[-2.0, -8.0, 0.0, 1.0], [2.0, -2.0, 0.0, -1.0]],
        "presence-penalty": [[0.0, -4.0, 0.0, 1.0], [2.0, -2.0, 0.0, -1.0]],
    }
    for name, expected in cases.items():
        out = spec(name, penalty=2.0).build(SamplerContext(4, 2))(logits, history)
        assert out.tolist() == expected, name


@pytest.mark.parametrize("name", ["repetition-penalty", "frequency-penalty", "presence-penalty"])
def test_penalties_consider_their_window_only(name: str) -> None:
    logits = torch.ones(1, 4)
    out = spec(name, penalty=2.0, window=2).build(SamplerContext(4))(logits, [[0, 1, 2, 2]])
    assert (out != logits).tolist() == [[False, False, True, False]]


def test_greedy_keeps_the_lowest_id_of_equal_logits() -> None:
    out = spec("greedy").build(SamplerContext(4, 2))(torch.tensor([[0.0, 3.0, 3.0, 1.0], [-math.inf, -1, -2, -3]]), [[], []])
    assert out.tolist() == [[-math.inf, 3.0, -math.inf, -math.inf], [-math.inf, -1.0, -math.inf, -math.inf]]
