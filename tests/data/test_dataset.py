"""Dataset of a text, as used in the book."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptkit.data import GPTDataset, create_dataloader


def test_book_example_with_a_context_of_four(shared_data: Path, make_bytes: Any) -> None:
    text = (shared_data / "the-verdict.txt").read_text(encoding="utf-8")
    tokenizer = make_bytes()
    ids = tokenizer.encode(text)

    one = create_dataloader(text, tokenizer, batch_size=1, max_length=4, stride=1, shuffle=False)
    batches = iter(one)
    first, second = next(batches), next(batches)
    assert [part.tolist() for part in first] == [[ids[0:4]], [ids[1:5]]]
    assert [part.tolist() for part in second] == [[ids[1:5]], [ids[2:6]]]
    assert len(one) == len(ids) - 4

    inputs, targets = next(iter(create_dataloader(text, tokenizer, batch_size=8, max_length=4, stride=4, shuffle=False)))
    assert inputs.shape == targets.shape == (8, 4)
    assert inputs.tolist() == [ids[i : i + 4] for i in range(0, 32, 4)]
    assert targets.tolist() == [ids[i + 1 : i + 5] for i in range(0, 32, 4)]


def test_shuffle_and_drop_last(make_bytes: Any) -> None:
    text = "".join(chr(97 + i % 26) for i in range(103))
    torch.manual_seed(0)
    shuffled = create_dataloader(text, make_bytes(), batch_size=4, max_length=3, stride=3)
    seen = [inputs.tolist() for inputs, _ in shuffled]
    assert len(seen) == len(shuffled) == 8  # 34 windows; the last two are dropped
    assert seen != [inputs.tolist() for inputs, _ in shuffled]
    kept = create_dataloader(text, make_bytes(), batch_size=4, max_length=3, stride=3, drop_last=False)
    assert sorted(len(inputs) for inputs, _ in kept) == [2] + [4] * 8


def test_workers_give_equal_results(make_bytes: Any) -> None:
    options: Any = {"batch_size": 2, "max_length": 4, "stride": 4, "shuffle": False}
    alone = create_dataloader("a text of some length", make_bytes(), **options)
    helped = create_dataloader("a text of some length", make_bytes(), num_workers=1, **options)
    assert [a.tolist() for a, _ in alone] == [b.tolist() for b, _ in helped]


def test_special_tokens_require_permission(make_bytes: Any) -> None:
    assert GPTDataset("ab<|end|>cd", make_bytes(), 4, 1)[0][0].tolist() == list(b"ab<|")
    allowed = GPTDataset("ab<|end|>cd", make_bytes(), 4, 1, allowed_special={"<|end|>"})
    assert allowed[0][0].tolist() == [*b"ab", 256, *b"c"]


def test_token_ids_are_accepted() -> None:
    for tokens in (list(range(10)), np.arange(10)):
        dataset = GPTDataset.from_tokens(tokens, max_length=4, stride=2)
        assert len(dataset) == 3
        assert [part.tolist() for part in dataset[1]] == [[2, 3, 4, 5], [3, 4, 5, 6]]
