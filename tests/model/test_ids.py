"""Token ids that are not rows of tokens, or are outside the vocabulary, are refused with the cause."""

from __future__ import annotations

import pytest
import torch

import gptkit
from gptkit.core.errors import GptkitError

SPEC = {"tokenizer": "byte", "model": {"context_length": 8, "d_model": 16, "n_layers": 1}}


def test_ids_without_rows() -> None:
    model = gptkit.build(SPEC)
    with pytest.raises(GptkitError, match=r"the shape \(rows, tokens\), and these have \(3,\)(?s:.*)ids\[None\]"):
        model(torch.tensor([1, 2, 3]))


@pytest.mark.parametrize("wrong", [-1, 10_000])
def test_ids_outside_the_vocabulary(wrong: int) -> None:
    model = gptkit.build(SPEC)
    with pytest.raises(GptkitError, match=rf"the token id {wrong} is outside the vocabulary of {model.vocab_size}"):
        model(torch.tensor([[1, wrong]]))
