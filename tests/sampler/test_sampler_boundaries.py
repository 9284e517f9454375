"""Boundary cases of samplers: candidates of `top-p`, shortest texts of `no-repeat-ngram`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as reference

from gptkit.components.sampler.no_repeat_ngram import NoRepeatNgramSpec
from gptkit.components.sampler.top_p import TopP
from gptkit.kinds.sampler import SamplerContext

VOCAB = 40


class NarrowTopP(TopP):
    first_look = 4


def distinct_logits(seed: int) -> Tensor:
    """Return logits with clear differences, so that results do not depend on rounding."""
    order = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(seed))
    return (torch.linspace(0, 2, VOCAB) + 0.01 * torch.arange(VOCAB)[order].sort().values)[order][None]


@pytest.mark.parametrize("n_kept", range(1, VOCAB + 1))
def test_top_p_keeps_the_exact_number_at_any_bound_of_its_candidates(n_kept: int) -> None:
    # 4 candidates at first, then all 40 (16 times as many, no more than there are).
    logits_BV = torch.cat([distinct_logits(seed) for seed in range(3)])
    p_V = logits_BV[0].double().softmax(-1).sort(descending=True).values
    p = float(p_V[:n_kept].sum() - p_V[n_kept - 1] / 2)
    kept_BV = NarrowTopP(p)(logits_BV, [[]] * 3) > -torch.inf
    assert kept_BV.sum(-1).tolist() == [n_kept] * 3
    best_BN = logits_BV.topk(n_kept).indices
    assert kept_BV.gather(-1, best_BN).all()


def test_top_p_of_several_rows_sorts_enough_candidates_for_every_row() -> None:
    steep = torch.linspace(0, 60, VOCAB)
    logits_BV = torch.stack((steep, torch.linspace(0, 0.1, VOCAB)))
    kept = (NarrowTopP(0.9)(logits_BV, [[]] * 2) > -torch.inf).sum(-1).tolist()
    assert kept == [2, 36]


@pytest.mark.parametrize(("n_kept", "looks"), [(1, [4]), (3, [4]), (4, [4, 40]), (5, [4, 40])])
def test_top_p_widens_its_candidates_only_where_all_of_them_are_kept(
    n_kept: int, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits_BV = distinct_logits(0)
    p_V = logits_BV[0].double().softmax(-1).sort(descending=True).values
    seen, topk = [], Tensor.topk

    def counting(self: Tensor, k: int, *args: Any, **kwargs: Any) -> Any:
        seen.append(k)
        return topk(self, k, *args, **kwargs)

    monkeypatch.setattr(Tensor, "topk", counting)
    NarrowTopP(float(p_V[:n_kept].sum() - p_V[n_kept - 1] / 2))(logits_BV, [[]])
    assert seen == looks


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_no_repeat_ngram_of_a_text_about_as_long_as_the_sequence(n: int, extra: int) -> None:
    logits_BV = torch.linspace(0, 1, VOCAB)[None]
    history = [[6] * (n + extra)]
    banned = (NoRepeatNgramSpec(n=n).build(SamplerContext(VOCAB, 1))(logits_BV, history) == -torch.inf)[0]
    assert banned.nonzero().flatten().tolist() == ([6] if extra >= 0 else [])
    if history[0]:
        expected_BV = reference.NoRepeatNGramLogitsProcessor(n)(torch.tensor(history), logits_BV.clone())
        assert torch.equal(banned, expected_BV[0] == -torch.inf)


def test_no_repeat_ngram_ignores_ids_beyond_the_last_logit() -> None:
    # A tokenizer may have more ids than the model has logits.
    logits_BV = torch.linspace(0, 1, VOCAB)[None]
    sampler = NoRepeatNgramSpec(n=2).build(SamplerContext(VOCAB, 1))
    assert torch.equal(sampler(logits_BV, [[6, VOCAB, 6]]), logits_BV)
    banned = (sampler(logits_BV, [[6, VOCAB - 1, 6]]) == -torch.inf)[0]
    assert banned.nonzero().flatten().tolist() == [VOCAB - 1]
