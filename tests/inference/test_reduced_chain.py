"""Chains that continue with the few tokens that top-k and top-p leave.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.inference.chain import Chain, row_streams
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

VOCAB, ROWS = 4096, 24


def spec(name: str, **fields: Any) -> SamplerSpec:
    made = default_registry().component("sampler", name).model_validate({"name": name, **fields})
    assert isinstance(made, SamplerSpec)
    return made


class Ignored:
    """Trace that makes a chain work on the whole vocabulary."""

    def sampler(self, *_: Any) -> None: ...

    def drawn(self, *_: Any) -> None: ...


def random_logits(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits_BV = torch.randn(ROWS, VOCAB, generator=generator) * torch.logspace(-1, 1, ROWS)[:, None]
    logits_BV[::4] = (logits_BV[::4] * 2).round() / 2  # many equal logits
    logits_BV[1::4, 100:] = -torch.inf
    logits_BV[2::4, 7:] = -torch.inf
    return logits_BV


CHAINS: list[list[SamplerSpec]] = [
    [spec("top-k", k=40)],
    [spec("temperature", value=0.8), spec("top-k", k=5)],
    [spec("top-p", p=0.6)],
    [spec("top-k", k=40), spec("top-p", p=0.9), spec("min-p", p=0.05), spec("temperature", value=0.7)],
    [spec("top-p", p=0.9), spec("typical", p=0.8), spec("dynamic-temperature")],
    [spec("top-k", k=20), spec("repetition-penalty", penalty=1.4), spec("top-p", p=0.8), spec("xtc", threshold=0.05)],
    [spec("top-k", k=30), spec("tail-free", z=0.9), spec("top-h", h=0.7), spec("eta"), spec("epsilon", p=0.001)],
    [spec("top-k", k=30), spec("top-n-sigma", n=1.5), spec("mirostat-v2", tau=2.0)],
    [spec("top-k", k=30), spec("mirostat", tau=2.0)],
    [spec("top-k", k=9), spec("adaptive-p")],
    [spec("top-p", p=0.5), spec("greedy")],
]


@pytest.mark.parametrize("specs", CHAINS, ids=["+".join(each.name for each in chain) for chain in CHAINS])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 4), slice(1, 3)])
def test_reduced_chain_draws_the_same_tokens(specs: Sequence[SamplerSpec], rows: slice) -> None:
    n_rows = len(range(ROWS)[rows])
    reduced, whole = (Chain(specs, SamplerContext(VOCAB, n_rows), row_streams(0, n_rows)) for _ in range(2))
    n_different = 0
    for step in range(30):
        logits_BV = random_logits(step)[rows]
        history = [[step, row, 3] for row in range(n_rows)]
        tokens_B, expected_B = reduced.pick(logits_BV, history), whole.pick(logits_BV, history, Ignored())
        n_different += int((tokens_B != expected_B).sum())
    assert n_different <= 1  # sums of other lengths are rounded differently


def test_reduction_happens_and_only_where_the_next_sampler_allows_it() -> None:
    logits_BV = random_logits(0)[3:4]

    def sizes(*specs: SamplerSpec) -> tuple[int, bool]:
        made, ids_BK = Chain(specs, SamplerContext(VOCAB, 1), row_streams(0, 1))._apply(logits_BV, [[1]])
        return made.shape[-1], ids_BK is None

    assert sizes(spec("top-k", k=40), spec("temperature")) == (40, False)
    assert sizes(spec("top-k", k=40), spec("repetition-penalty")) == (VOCAB, True)
    assert sizes(spec("top-k", k=40), spec("temperature"), spec("repetition-penalty")) == (VOCAB, True)
    assert sizes(spec("top-k", k=2000)) == (VOCAB, True)
    assert sizes(spec("top-p", p=0.99999)) == (VOCAB, True)


@pytest.mark.parametrize("specs", [[spec("top-k", k=5)], [spec("top-p", p=0.5)]])
def test_rows_with_nan_are_reported_and_others_drawn(specs: Sequence[SamplerSpec]) -> None:
    logits_BV = random_logits(0)[:8].clone()
    logits_BV[2, 5] = torch.nan
    logits_BV[6] = -torch.inf
    failed: list[int] = []
    tokens_B = Chain(specs, SamplerContext(VOCAB, 8), row_streams(0, 8)).pick(logits_BV, [[]] * 8, failed=failed)
    assert sorted(failed) == [2, 6]
    clean = Chain(specs, SamplerContext(VOCAB, 8), row_streams(0, 8)).pick(random_logits(0)[:8], [[]] * 8)
    kept = [row for row in range(8) if row not in (2, 6)]
    assert tokens_B[kept].tolist() == clean[kept].tolist()
    with pytest.raises(GptkitError, match="cannot be sampled"):
        Chain(specs, SamplerContext(VOCAB, 8), row_streams(0, 8)).pick(logits_BV, [[]] * 8)
