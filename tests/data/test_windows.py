"""Data windows: targets, strides, random windows, epochs, documents, validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptkit.core.errors import DataError
from gptkit.data import Windows


def row(length: int, dtype: str = "<u2") -> Any:
    return np.arange(length, dtype=dtype)


def naive(tokens: list[int], length: int, stride: int) -> list[tuple[list[int], list[int]]]:
    """Return the data windows of a plain loop."""
    return [(tokens[i : i + length], tokens[i + 1 : i + length + 1]) for i in range(0, len(tokens) - length, stride)]


sizes = st.tuples(st.integers(2, 80), st.integers(1, 20), st.integers(1, 30)).filter(lambda s: s[0] > s[1])


@given(sizes)
@settings(deadline=None)
def test_windows_equal_the_naive_loop(size: tuple[int, int, int]) -> None:
    length, context, stride = size
    tokens = np.random.default_rng(length).integers(0, 60_000, length).astype("<u2")
    windows = Windows(tokens, context, stride=stride)
    expected = naive(tokens.tolist(), context, stride)
    assert len(windows) == len(expected)
    assert [(inputs.tolist(), targets.tolist()) for inputs, targets in windows] == expected
    assert windows[-1][0].tolist() == expected[-1][0]
    assert windows[0][0].dtype == torch.int64
    for wrong in (len(windows), -len(windows) - 1):
        with pytest.raises(IndexError):
            windows[wrong]


def test_the_stride_is_the_context_length_by_default() -> None:
    windows = Windows(row(13), 4)
    assert [inputs.tolist() for inputs, _ in windows] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@given(sizes, st.integers(0, 10**6), st.integers(1, 9), st.integers(0, 2**40), st.sampled_from(["random", "ordered"]))
@settings(deadline=None)
def test_every_target_is_the_next_token(
    size: tuple[int, int, int], step: int, batch_size: int, seed: int, order: Any
) -> None:
    length, context, stride = size
    batch = Windows(row(length), context, stride=stride, order=order, shuffle=True).batch(step, batch_size, seed)
    assert batch.inputs_BT.shape == batch.targets_BT.shape == (batch_size, context)
    assert batch.inputs_BT.dtype == batch.targets_BT.dtype == torch.int64
    assert batch.inputs_BT.is_contiguous()
    assert batch.targets_BT.is_contiguous()
    assert torch.equal(batch.targets_BT, batch.inputs_BT + 1)
    assert torch.equal(batch.inputs_BT, batch.inputs_BT[:, :1] + torch.arange(context))
    assert batch.targets_BT.max() < length
    assert batch.documents_BT is None


def test_random_windows_are_uniform_over_all_offsets() -> None:
    windows = Windows(row(23), 3, order="random")
    starts = np.concatenate([windows.starts(step, 50, seed=1) for step in range(400)])
    counts = np.bincount(starts)
    assert len(counts) == 20  # 0 … 19: the last window ends with the last token
    assert counts.min() > 850
    assert counts.max() < 1150


@pytest.mark.parametrize("options", [{"order": "random"}, {}, {"shuffle": True}])
def test_a_batch_depends_on_step_and_seed_only(options: Any) -> None:
    tokens = np.random.default_rng(0).integers(0, 1000, 500).astype("<u2")
    first, other = Windows(tokens, 7, stride=2, **options), Windows(tokens, 7, stride=2, **options)
    forwards = [first.batch(step, 4, 5).inputs_BT for step in range(150)]
    backwards = [other.batch(step, 4, 5).inputs_BT for step in reversed(range(150))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    differs = not torch.equal(torch.cat(forwards), torch.cat([first.batch(step, 4, 6).inputs_BT for step in range(150)]))
    assert differs == bool(options)
    assert not torch.equal(forwards[0], forwards[1])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 30, 70])
def test_ordered_batches_cover_all_windows_in_every_epoch(shuffle: bool, batch_size: int) -> None:
    windows = Windows(row(100), 5, stride=3, shuffle=shuffle)
    n = len(windows)
    steps = -(-3 * n // batch_size)
    starts = np.concatenate([windows.starts(step, batch_size, seed=2) for step in range(steps)])[: 3 * n].reshape(3, n)
    for epoch in starts:
        assert sorted(epoch) == list(range(0, 3 * n, 3))
        assert (epoch.tolist() == sorted(epoch)) is not shuffle
    assert (starts[0].tolist() == starts[1].tolist()) is not shuffle


def test_processes_receive_the_parts_of_a_batch() -> None:
    windows = Windows(row(1000), 8, order="random")
    whole = windows.batch(3, 6, 1).inputs_BT
    starts = windows.starts(3, 6, 1)
    assert torch.equal(torch.cat([windows.gather(starts[:4]).inputs_BT, windows.gather(starts[4:]).inputs_BT]), whole)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    context=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_document_numbers_equal_the_naive_loop(lengths: list[int], context: int, seed: int) -> None:
    of_token = np.repeat(np.arange(len(lengths)), lengths)
    if len(of_token) < context + 1:
        return
    starts = np.cumsum([0, *lengths])[:-1].astype(np.int64)
    windows = Windows(row(len(of_token)), context, order="random", document_starts=starts)
    batch = windows.batch(0, 5, seed)
    assert batch.documents_BT is not None
    assert batch.documents_BT.dtype == torch.int64
    for inputs, documents in zip(batch.inputs_BT.tolist(), batch.documents_BT.tolist(), strict=True):
        assert documents == (of_token[inputs] - of_token[inputs[0]]).tolist()
    last = list(windows.batches(2))[-1]
    assert last.documents_BT is not None
    inputs, documents = last.inputs_BT[-1].tolist(), last.documents_BT[-1].tolist()
    assert documents == (of_token[inputs] - of_token[inputs[0]]).tolist()


@given(length=st.integers(2, 120), context=st.integers(1, 20), batch_size=st.integers(1, 6))
@settings(deadline=None)
def test_validation_contains_every_target_once_in_order(length: int, context: int, batch_size: int) -> None:
    if length < context + 1:
        return
    batches = list(Windows(row(length), context).batches(batch_size))
    assert [t for batch in batches for t in batch.targets_BT.flatten().tolist()] == list(range(1, length))
    assert all(len(batch.inputs_BT) <= batch_size for batch in batches)
    assert all(torch.equal(batch.targets_BT, batch.inputs_BT + 1) for batch in batches)


def test_limited_validation_spreads_over_the_tokens() -> None:
    windows = Windows(row(10_000), 10)
    batches = list(windows.batches(4, 3))
    starts = [window[0] for batch in batches for window in batch.inputs_BT.tolist()]
    assert len(batches) == 3
    assert len(set(starts)) == 12
    assert starts == sorted(starts)
    assert all(start % 10 == 0 for start in starts)
    assert min(starts) == 0
    assert max(starts) > 9_000
    assert starts == [window[0] for batch in windows.batches(4, 3) for window in batch.inputs_BT.tolist()]
    assert len(list(Windows(row(38), 5).batches(4, 2))) == 2  # seven windows fill two batches; the remaining two are omitted
    assert len(list(Windows(row(38), 5).batches(4, 3))) == 3


def test_too_few_tokens_are_reported_with_their_number() -> None:
    assert len(Windows(row(9), 8)) == 1
    with pytest.raises(DataError, match=r"the text has 8 tokens.*requires 9.*\n.*training.window of at most 7"):
        Windows(row(8), 8)
    with pytest.raises(DataError, match=r"has 0 tokens.*\n  Use more text\.$"):
        Windows(row(0), 8)


def test_memory_maps_and_four_byte_ids_are_read(tmp_path: Path) -> None:
    (np.arange(1000, dtype="<u4") + 100_000).tofile(tmp_path / "t.bin")
    mapped = np.memmap(tmp_path / "t.bin", "<u4", mode="r")
    assert Windows(mapped, 4).batch(1, 2).targets_BT.tolist() == [
        [100_009, 100_010, 100_011, 100_012],
        [100_013, 100_014, 100_015, 100_016],
    ]
