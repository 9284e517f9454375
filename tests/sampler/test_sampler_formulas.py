"""Samplers against their formulas, computed another way."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as reference

from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

VOCAB, ROWS = 120, 1000


def spec(name: str, **fields: Any) -> SamplerSpec:
    made = default_registry().component("sampler", name).model_validate({"name": name, **fields})
    assert isinstance(made, SamplerSpec)
    return made


def random_logits(*, masked: bool) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    logits_BV = torch.randn(ROWS, VOCAB, generator=generator) * torch.logspace(-1, 1, ROWS)[:, None]
    if masked:
        logits_BV[torch.rand(ROWS, VOCAB, generator=generator) < torch.linspace(0.1, 0.98, ROWS)[:, None]] = -torch.inf
        logits_BV[:, 3] = 0.0
    return logits_BV


@pytest.mark.parametrize("h", [0.05, 0.4, 0.8, 0.99])
def test_top_h_equals_transformers(h: float) -> None:
    logits_BV = random_logits(masked=False)
    actual_BV = spec("top-h", h=h).build(SamplerContext(VOCAB, ROWS))(logits_BV, [[]] * ROWS)
    expected_BV = reference.TopHLogitsWarper(h)(torch.zeros(ROWS, 0), logits_BV.double()).float()
    assert torch.equal(actual_BV, expected_BV)


def test_top_h_considers_its_candidates_only() -> None:
    logits_BV = random_logits(masked=True)
    out_BV = spec("top-h", h=1, candidates=7).build(SamplerContext(VOCAB, ROWS))(logits_BV, [[]] * ROWS)
    expected_BV = spec("top-k", k=7).build(SamplerContext(VOCAB, ROWS))(logits_BV, [[]] * ROWS)
    assert torch.equal(out_BV, expected_BV)


@pytest.mark.parametrize("z", [0.1, 0.6, 0.95])
@pytest.mark.parametrize("masked", [False, True])
def test_tail_free_equals_its_formula(z: float, masked: bool) -> None:
    logits_BV = random_logits(masked=masked)
    actual_BV = spec("tail-free", z=z).build(SamplerContext(VOCAB, ROWS))(logits_BV, [[]] * ROWS)
    for logits_V, actual_V in zip(logits_BV, actual_BV, strict=True):
        ranked = sorted((value for value in logits_V.tolist() if value > -math.inf), reverse=True)
        total = math.fsum(math.exp(value - ranked[0]) for value in ranked)
        p = [math.exp(value - ranked[0]) / total for value in ranked]
        curvature = [abs(a - 2 * b + c) for a, b, c in zip(p, p[1:], p[2:], strict=False)]
        limit, sums = z * math.fsum(curvature), list(itertools.accumulate(curvature))
        n_kept = next((i for i, value in enumerate(sums) if i and value > limit), len(ranked))
        assert actual_V[actual_V > -torch.inf].tolist() == logits_V[logits_V >= ranked[n_kept - 1]].tolist()


def test_mirostat_keeps_a_number_of_tokens_that_follows_from_zipf_law() -> None:
    # P[i] ∝ i^-2 has the slope 2 exactly; k solves the formula of the paper.
    logits_V = -2.0 * torch.arange(1, VOCAB + 1).float().log()
    for tau, expected in ((1.0, 2), (2.0, 4), (3.0, 8)):
        k = math.sqrt(2 ** (2 * tau) / (1 - 1 / VOCAB))
        out = spec("mirostat", tau=tau).build(SamplerContext(VOCAB, 1))(logits_V[None], [[]])
        assert int((out > -torch.inf).sum()) == math.floor(k) == expected


@pytest.mark.parametrize("name", ["mirostat", "mirostat-v2"])
def test_mirostat_approaches_its_target(name: str) -> None:
    """The mean surprisal of 3,000 tokens of a fixed distribution is that which was asked for."""
    from gptkit.inference.chain import Chain, row_streams

    logits_BV = (-1.1 * torch.arange(1, 2001).float().log()).expand(30, -1)
    chain = Chain([spec(name, tau=3.0, eta=0.1)], SamplerContext(2000, 30), row_streams(0, 30))
    surprisals: list[float] = []

    class Trace:
        def sampler(self, *_: Any) -> None: ...

        def drawn(self, tokens_B: Tensor, p_B: Tensor) -> None:
            surprisals.extend((-p_B.log2()).tolist())

    for _ in range(100):
        chain.pick(logits_BV, [[]] * 30, Trace())
    assert sum(surprisals) / len(surprisals) == pytest.approx(3.0, abs=0.15)


def test_dry_finds_breakers_across_tokens_and_does_not_penalize_them() -> None:
    class Pieces:
        tokens = (b"a", b"b", b"<e", b"nd>", b"x<end>y", b"end")

        def token_bytes(self, token: int) -> bytes:
            return self.tokens[token]

    def penalized(history: list[int]) -> list[int]:
        sampler = spec("dry", allowed_length=1, breakers=["<end>"]).build(SamplerContext(6, 1, Pieces()))  # type: ignore[arg-type]
        return (sampler(torch.zeros(1, 6), [history])[0] < 0).nonzero().flatten().tolist()

    assert penalized([0, 1, 5, 0]) == [1]
    assert penalized([0, 1, 5, 0, 1]) == [5]
    assert penalized([2, 3, 0, 2, 3]) == []  # nothing follows the breaker
    assert penalized([3, 0, 1, 2, 3, 0]) == [1]  # one token after it
    assert penalized([0, 4, 0]) == []  # the token that would repeat contains a breaker
    assert penalized([0, 1, 4, 0]) == [1]


def test_dry_without_tokenizer_is_refused_unless_it_has_no_breakers() -> None:
    with pytest.raises(GptkitError, match="sampler 'dry' needs a tokenizer"):
        spec("dry").build(SamplerContext(6))
    out = spec("dry", breakers=[], allowed_length=1).build(SamplerContext(3))(torch.zeros(1, 3), [[0, 1, 0, 7, 0]])
    assert out.tolist() == [[0.0, pytest.approx(-0.8), 0.0]]  # id 7 is outside the vocabulary
