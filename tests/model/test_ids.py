"""Token ids that are not rows of tokens, or are outside the vocabulary, are refused with the cause."""

from __future__ import annotations

import pytest
import torch

import gptkit
from gptkit.core.errors import GptkitError

SPEC = {"tokenizer": "byte", "model": {"context_length": 8, "d_model": 16, "n_layers": 1}}


def test_ids_without_rows_are_rejected() -> None:
    model = gptkit.build(SPEC)
    with pytest.raises(GptkitError, match=r"the shape \(rows, tokens\), not \(3,\)(?s:.*)ids\[None\]"):
        model(torch.tensor([1, 2, 3]))


@pytest.mark.parametrize("wrong", [-1, 10_000])
def test_ids_outside_the_vocabulary_are_rejected(wrong: int) -> None:
    model = gptkit.build(SPEC)
    with pytest.raises(GptkitError, match=rf"the token id {wrong} is outside the vocabulary of {model.vocab_size}"):
        model(torch.tensor([[1, wrong]]))


def test_single_id_is_checked_without_a_cache() -> None:
    model = gptkit.build(SPEC)
    with pytest.raises(GptkitError, match="the token id 999 is outside the vocabulary"):
        model(torch.tensor([[999]]))


@pytest.mark.parametrize("wrong", [-1, 999])
def test_targets_outside_the_vocabulary_are_rejected(wrong: int) -> None:
    model = gptkit.build(SPEC)
    ids = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(GptkitError, match=f"the target {wrong} is outside the vocabulary"):
        model(ids, torch.tensor([[0, wrong, -100]]))
    assert model(ids, torch.tensor([[0, 1, -100]])).loss.isfinite()


def test_targets_of_a_different_shape_are_rejected() -> None:
    model = gptkit.build(SPEC)
    with pytest.raises(GptkitError, match=r"the targets have the shape \(1, 2\), and the token ids \(1, 3\)"):
        model(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))
