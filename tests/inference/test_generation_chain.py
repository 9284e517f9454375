"""Sampling at the end of a chain."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor

from gptkit.components.sampler.greedy import GreedySpec
from gptkit.components.sampler.temperature import TemperatureSpec
from gptkit.components.sampler.top_k import TopKSpec
from gptkit.components.sampler.top_p import TopPSpec
from gptkit.core.errors import GptkitError
from gptkit.inference.chain import Chain, row_streams
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.testing import run_checks

LOGITS = torch.tensor([2.0, 1.5, -torch.inf, 0.0, -1.0, 1.0])


def draws(specs: Sequence[SamplerSpec], logits_V: Tensor, rows: int, seed: int = 0) -> Tensor:
    """One draw in each of many rows: every row has its own stream."""
    chain = Chain(specs, SamplerContext(len(logits_V), rows), row_streams(seed, rows))
    return chain.pick(logits_V.expand(rows, -1), [[]] * rows)


def chi_square(drawn: Tensor, p_V: Tensor) -> float:
    counts_V = torch.bincount(drawn, minlength=len(p_V)).double()
    expected_V = p_V.double() * len(drawn)
    assert (counts_V[p_V == 0] == 0).all()
    likely = p_V > 0
    return float(((counts_V - expected_V)[likely].square() / expected_V[likely]).sum())


@pytest.mark.parametrize(
    ("specs", "p_V"),
    [
        ([], LOGITS.softmax(-1)),
        ([TemperatureSpec(value=0.5)], (2 * LOGITS).softmax(-1)),
        ([TopKSpec(k=3)], torch.tensor([2.0, 1.5, -torch.inf, -torch.inf, -torch.inf, 1.0]).softmax(-1)),
        ([TopPSpec(p=0.6)], torch.tensor([2.0, 1.5, -torch.inf, -torch.inf, -torch.inf, -torch.inf]).softmax(-1)),
        (
            [TemperatureSpec(value=10.0), TopPSpec(p=0.6)],
            (torch.tensor([2.0, 1.5, -torch.inf, -torch.inf, -torch.inf, 1.0]) / 10).softmax(-1),
        ),
    ],
    ids=["plain", "temperature", "top-k", "top-p", "the order counts"],
)
def test_draws_follow_the_distribution(specs: list[SamplerSpec], p_V: Tensor) -> None:
    # Five degrees of freedom at most: chance exceeds 20.5 once in a thousand seeds, and the seed is fixed.
    assert chi_square(draws(specs, LOGITS, 20_000), p_V) < 20.5


def test_draws_of_one_stream_follow_the_distribution() -> None:
    chain = Chain([], SamplerContext(6, 1), row_streams(3, 1))
    drawn = torch.cat([chain.pick(LOGITS[None], [[]]) for _ in range(4000)])
    assert chi_square(drawn, LOGITS.softmax(-1)) < 20.5


def test_draws_from_a_large_vocabulary_follow_the_distribution() -> None:
    logits_BV = torch.zeros(50, 50_000)
    chain = Chain([], SamplerContext(50_000, 50), row_streams(0, 50))
    drawn = torch.cat([chain.pick(logits_BV, [[]] * 50) for _ in range(20)])
    # 19 degrees of freedom: chance exceeds 43.8 once in a thousand seeds.
    assert chi_square(drawn // 2500, torch.full((20,), 0.05)) < 43.8


def test_tokens_without_probability_are_never_drawn() -> None:
    class Edge:
        def __init__(self, value: float) -> None:
            self.value = value

        def random(self) -> float:
            return self.value

    logits = torch.tensor([[-torch.inf, -torch.inf, 0.0, 0.3, -torch.inf, -torch.inf]])
    for value, token in ((0.0, 2), (1 - 2**-53, 3)):
        chain = Chain([], SamplerContext(6, 1), row_streams(0, 1))
        chain._streams = [Edge(value)]  # type: ignore[list-item]
        assert chain.pick(logits, [[]]).tolist() == [token]


def test_stream_depends_on_seed_and_row_only() -> None:
    flat = torch.zeros(1000)
    many = draws([], flat, 40, seed=7)
    assert torch.equal(many, draws([], flat, 40, seed=7))
    assert torch.equal(many[:3], draws([], flat, 3, seed=7))
    assert not torch.equal(many, draws([], flat, 40, seed=8))
    assert len(set(many.tolist())) > 30  # rows do not share a stream


def test_remaining_rows_keep_their_streams() -> None:
    logits = torch.zeros(3, 1000)
    whole = Chain([], SamplerContext(1000, 3), row_streams(1, 3))
    cut = Chain([], SamplerContext(1000, 3), row_streams(1, 3))
    whole.pick(logits, [[]] * 3)
    cut.pick(logits, [[]] * 3)
    cut.reorder([2])
    assert cut.pick(logits[:1], [[]])[0] == whole.pick(logits, [[]] * 3)[2]


class Listener(Sampler):
    def __init__(self) -> None:
        self.received: list[tuple[list[int], list[float]]] = []
        self.rows: list[int] = []

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        return logits_BV

    def chosen(self, tokens: Sequence[int], log_probabilities: Sequence[float]) -> None:
        self.received.append((list(tokens), list(log_probabilities)))

    def reorder(self, rows: Sequence[int]) -> None:
        self.rows += rows


class ListenerSpec(SamplerSpec):
    """Sampler that records the drawn tokens."""

    name: Literal["listener"] = "listener"

    def build(self, context: SamplerContext) -> Listener:
        return Listener()


def test_samplers_receive_the_drawn_tokens() -> None:
    chain = Chain([ListenerSpec(), TopKSpec(k=2)], SamplerContext(6, 2), row_streams(0, 2))
    listener = chain._links[0]
    assert isinstance(listener, Listener)
    chosen = chain.pick(LOGITS.expand(2, -1), [[], []]).tolist()
    chain.reorder([1])
    p = torch.tensor([2.0, 1.5]).softmax(-1).log().tolist()
    (tokens, log_p) = listener.received[0]
    assert tokens == chosen
    assert log_p == pytest.approx([p[token] for token in tokens], rel=1e-6)
    assert listener.rows == [1]


def test_greedy_ends_the_chain_without_draws() -> None:
    chain = Chain([TemperatureSpec(value=2.0), GreedySpec(), ListenerSpec()], SamplerContext(6, 1), row_streams(0, 1))
    assert len(chain._links) == 1
    before = chain._streams[0].getstate()
    assert chain.pick(LOGITS[None], [[]]).tolist() == [0]
    assert chain._streams[0].getstate() == before


class Recorder:
    """Trace that records all calls."""

    def __init__(self) -> None:
        self.samplers: list[tuple[int, str, list[int], list[int]]] = []
        self.draws: list[tuple[list[int], list[float]]] = []

    def sampler(self, index: int, spec: SamplerSpec, before_BV: Tensor, after_BV: Tensor) -> None:
        counts = [(logits_BV > -torch.inf).sum(-1).tolist() for logits_BV in (before_BV, after_BV)]
        self.samplers.append((index, spec.name, *counts))

    def drawn(self, tokens_B: Tensor, p_B: Tensor) -> None:
        self.draws.append((tokens_B.tolist(), p_B.tolist()))


def test_trace_receives_what_each_sampler_left_and_the_draw() -> None:
    def chain(*specs: SamplerSpec) -> Chain:
        return Chain(specs, SamplerContext(6, 2), row_streams(0, 2))

    drawn, greedy = Recorder(), Recorder()
    specs = (TemperatureSpec(value=2.0), TopKSpec(k=2))
    chosen = chain(*specs).pick(LOGITS.expand(2, -1), [[], []], drawn)
    assert torch.equal(chosen, chain(*specs).pick(LOGITS.expand(2, -1), [[], []]))
    assert drawn.samplers == [(0, "temperature", [5, 5], [5, 5]), (1, "top-k", [5, 5], [2, 2])]
    p = torch.tensor([1.0, 0.75]).softmax(-1)
    assert drawn.draws[0] == (chosen.tolist(), pytest.approx(p[chosen].tolist()))
    chain(TopKSpec(k=3), GreedySpec(), TopKSpec(k=2)).pick(LOGITS.expand(2, -1), [[], []], greedy)
    assert greedy.samplers == [(0, "top-k", [5, 5], [3, 3]), (1, "greedy", [3, 3], [1, 1])]
    assert greedy.draws == [([0, 0], [1.0, 1.0])]


@pytest.mark.parametrize("specs", [[], [GreedySpec()]], ids=["drawn", "greedy"])
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_logits_without_finite_values_are_an_error(specs: list[SamplerSpec], bad: float) -> None:
    logits = torch.full((2, 6), bad)
    logits[0] = 0.0
    with pytest.raises(GptkitError, match="cannot be sampled"):
        Chain(specs, SamplerContext(6, 2), row_streams(0, 2)).pick(logits, [[], []])


class CoinSpec(SamplerSpec):
    """Exclude the best token half of the time, as XTC does."""

    name: Literal["coin"] = "coin"

    def build(self, context: SamplerContext) -> Sampler:
        return Coin(context.streams)


class Coin(Sampler):
    def __init__(self, streams: Sequence[str]) -> None:
        self.streams = [random.Random(stream) for stream in streams]

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        excluded_B1 = torch.tensor([[stream.random() < 0.5] for stream in self.streams])
        excluded_B1 &= logits_BV.isfinite().sum(-1, keepdim=True) > 1
        best_BV = torch.zeros_like(logits_BV, dtype=torch.bool).scatter(-1, logits_BV.argmax(-1, keepdim=True), True)
        return logits_BV.masked_fill(best_BV & excluded_B1, -torch.inf)

    def reorder(self, rows: Sequence[int]) -> None:
        self.streams = [copy.copy(self.streams[row]) for row in rows]  # rows continued twice draw for themselves


def test_sampler_with_random_numbers_of_its_own_is_repeatable_and_independent_of_the_batch() -> None:
    logits = torch.tensor([[0.0, 30.0, 60.0]]).expand(4, -1)
    specs = [CoinSpec(), CoinSpec()]

    def texts(streams: list[str]) -> list[list[int]]:
        chain = Chain(specs, SamplerContext(3, len(streams)), streams)
        steps = [chain.pick(logits[: len(streams)], [[]] * len(streams)).tolist() for _ in range(12)]
        return [list(row) for row in zip(*steps, strict=True)]

    together = texts(row_streams(7, 4))
    assert texts(row_streams(7, 4)) == together
    assert [texts([stream])[0] for stream in row_streams(7, 4)] == together
    assert texts(row_streams(8, 4)) != together
    # The two samplers draw different numbers: sometimes one excludes the best token, sometimes both exclude the two best.
    assert {token for row in together for token in row} == {0, 1, 2}


def test_sampler_with_random_numbers_of_its_own_passes_the_conformance_checks() -> None:
    results = run_checks(CoinSpec())
    assert not [result.message for result in results if not result.ok]
    assert [result.check.name for result in results if result.outcome == "skipped"] == [
        "draws-follow-the-logits",
        "anonymous-samplers-ignore-ids",
    ]


class WrongSpec(SamplerSpec):
    """Sampler that returns something other than logits."""

    name: Literal["wrong"] = "wrong"
    shape: bool = False

    def build(self, context: SamplerContext) -> Sampler:
        return Wrong(self.shape)


class Wrong(Sampler):
    def __init__(self, shape: bool) -> None:
        self.shape = shape

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        return logits_BV[0] if self.shape else None  # type: ignore[return-value]


class Ignored:
    """Trace that records nothing."""

    def sampler(self, index: int, spec: SamplerSpec, before_BV: Tensor, after_BV: Tensor) -> None: ...

    def drawn(self, tokens_B: Tensor, p_B: Tensor) -> None: ...


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("shape", "what"), [(False, "NoneType"), (True, r"shape \(6,\)")])
def test_sampler_that_returns_no_logits_is_named(shape: bool, what: str, traced: bool) -> None:
    chain = Chain([WrongSpec(shape=shape)], SamplerContext(6, 2), row_streams(0, 2))
    message = rf"sampler 'wrong': .*\.Wrong\.__call__ returned {what}, not logits of the shape \(2, 6\)"
    with pytest.raises(GptkitError, match=message):
        chain.pick(LOGITS.expand(2, -1), [[], []], Ignored() if traced else None)
