"""Packed data windows: every target once, few cuts, little padding, and a fixed order."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gptkit.components.data.text import TextDataSpec
from gptkit.core.errors import DataError
from gptkit.data import prepare
from gptkit.data.files import TokenFile
from gptkit.data.packing import PackedWindows, best_fit, pack

Make = Callable[..., Any]
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=40).filter(lambda sizes: max(sizes) > 1)


def token_file(sizes: list[int], masked: np.ndarray[Any, Any] | None = None) -> TokenFile:
    """Documents of the given sizes; every token has another id."""
    tokens = np.arange(1, sum(sizes) + 1, dtype=np.uint16)
    return TokenFile(tokens, (np.cumsum([0, *sizes[:-1]], dtype=np.int64),), masked)


@given(sizes=lengths, length=st.integers(1, 20), group=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_every_target_occurs_once_in_its_document(sizes: list[int], length: int, group: int) -> None:
    """An independent count: the pairs of consecutive tokens of each document."""
    file = token_file(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gptkit.data.packing._GROUP", group)
        windows = PackedWindows(file, length)
    batch = windows.gather(range(len(windows)))
    assert batch.documents_BT is not None
    seen = []
    for inputs, targets, documents in zip(*(tensor.tolist() for tensor in batch), strict=True):  # type: ignore[union-attr]
        assert documents == sorted(documents, key=lambda number: (number < 0, number))
        assert [number < 0 for number in documents] == [token == 0 for token in inputs]
        for token, target in zip(inputs, targets, strict=True):
            assert (target == -100) == (token == 0)
            if token:
                seen.append((token, target))
        # A piece of a document has one number, and no two pieces share one.
        for number, part in itertools.groupby(zip(inputs, documents, strict=True), key=lambda pair: pair[1]):
            ids = [token for token, _ in part]
            assert ids == list(range(ids[0], ids[0] + len(ids))) or (not any(ids) and number == -1)
    pairs = []
    for start, size in zip(file.starts.tolist(), sizes, strict=True):
        pairs += [(token, token + 1) for token in range(start + 1, start + size)]
    assert Counter(seen) == Counter(pairs)
    used = sum(size - 1 for size in sizes)
    assert windows.waste.padding == pytest.approx(1 - used / (len(windows) * length))
    assert windows.waste.cut == sum(size - 1 > length for size in sizes)


@given(sizes=lengths, length=st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_documents_that_fit_are_not_cut(sizes: list[int], length: int) -> None:
    file = token_file(sizes)
    packing = pack(file.starts, len(file.tokens), length)
    pieces = dict(zip(packing.starts_P.tolist(), packing.lengths_P.tolist(), strict=True))
    for start, size in zip(file.starts.tolist(), sizes, strict=True):
        if 2 <= size <= length + 1:
            assert pieces[start] == size - 1


@given(sizes=st.lists(st.integers(1, 12), max_size=30))
@settings(max_examples=150, deadline=None)
def test_best_fit_equals_a_search_of_all_bins(sizes: list[int]) -> None:
    rooms: list[int] = []
    bins: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda item: (-sizes[item], item)):
        fitting = [(room, number) for number, room in enumerate(rooms) if room >= sizes[index]]
        if fitting:
            number = min(fitting)[1]
        else:
            number = len(bins)
            rooms.append(12)
            bins.append([])
        bins[number].append(index)
        rooms[number] -= sizes[index]
    result = best_fit(sizes, 12)
    assert sorted(index for items in result for index in items) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in items) <= 12 for items in result)
    # Of several bins with the same room the choice is free, which does not change how many bins of a room there are.
    assert Counter(sum(sizes[index] for index in items) for items in result) == Counter(12 - room for room in rooms)


def test_padding_is_small_for_documents_of_many_lengths() -> None:
    sizes = np.random.default_rng(0).integers(2, 600, size=2000).tolist()
    windows = PackedWindows(token_file([size % 500 + 2 for size in sizes]), 256)
    assert windows.waste.padding < 0.002


@pytest.mark.parametrize("shuffle", [False, True])
def test_epochs_hold_every_window_once_in_a_fixed_order(shuffle: bool) -> None:
    windows = PackedWindows(token_file([5, 9, 3, 30, 2, 8, 7] * 3), 8, shuffle=shuffle)
    n = len(windows)
    batches = [windows.batch(step, 2, seed=5) for step in range(n)]
    rows = [tuple(row) for batch in batches for row in batch.inputs_BT.tolist()]
    assert Counter(rows[:n]) == Counter(rows[n:])
    assert len(set(rows[:n])) == n
    again = PackedWindows(token_file([5, 9, 3, 30, 2, 8, 7] * 3), 8, shuffle=shuffle)
    assert again.batch(3, 2, seed=5).inputs_BT.equal(batches[3].inputs_BT)
    assert again.batch(0, 2, seed=5, first=6).inputs_BT.equal(batches[3].inputs_BT)
    assert (rows[:n] != rows[n:]) == shuffle


def test_masked_tokens_are_excluded_from_the_targets() -> None:
    masked = np.array([True, True, False, False, True, False, False])
    (row,) = PackedWindows(token_file([4, 3], masked), 8).gather([0]).targets_BT.tolist()
    assert row == [-100, 3, 4, 6, 7, -100, -100, -100]


def test_packing_is_selected_by_the_spec(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    data = listed(texts=[f"text {number} " * (1 + number % 5) for number in range(30)], windows="packed", shuffle=True)
    prepared = prepare(data, make_bytes(), tmp_path / "t", Path())
    windows = prepared.train_windows(data, 32)
    assert isinstance(windows, PackedWindows)
    # Validation measures what is trained: no attention across documents.
    assert all(batch.documents_BT is not None for batch in prepared.validation_batches(data, 32, 4))
    with pytest.raises(ValidationError, match="packed windows have no stride"):
        TextDataSpec(windows="packed", stride=3)
    with pytest.raises(DataError, match="no document of two tokens"):
        PackedWindows(token_file([1, 1]), 4)
