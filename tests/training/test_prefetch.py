"""Batches that are read ahead."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from gptkit.training.evaluation import Batch
from gptkit.training.prefetch import Prefetched

Call = tuple[int, int, int, int]


class Recording:
    """Batches that hold their arguments, and the calls with their threads."""

    def __init__(self, fails: int = -1) -> None:
        self.calls: list[tuple[Call, str]] = []
        self.fails = fails

    def __call__(self, step: int, batch_size: int, seed: int, /, *, first: int) -> Batch:
        self.calls.append(((step, batch_size, seed, first), threading.current_thread().name))
        if step == self.fails:
            raise OSError(f"step {step}")
        numbers = torch.tensor([[step, batch_size, seed, first]])
        return numbers, numbers + 1, None


def values(batch: Batch) -> Any:
    return tuple(batch[0][0].tolist())


def test_the_next_batch_is_read_in_a_thread() -> None:
    source = Recording()
    batches = Prefetched(source, torch.device("cpu"))
    read = [values(batches(step, 4, 7, first=4 * step, last=step == 4)) for step in range(5)]
    batches.close()
    assert read == [(step, 4, 7, 4 * step) for step in range(5)]
    assert [call for call, _ in source.calls] == read
    assert [thread.startswith("gptkit-data") for _, thread in source.calls] == [False, True, True, True, True]


def test_another_plan_discards_what_was_read_ahead() -> None:
    batches = Prefetched(Recording(), torch.device("cpu"))
    first = 0
    for step, size in enumerate([2, 2, 3, 5, 5]):
        assert values(batches(step, size, 0, first=first)) == (step, size, 0, first)
        first += size
    batches.close()


def test_errors_belong_to_the_step_that_uses_the_batch() -> None:
    batches = Prefetched(Recording(fails=1), torch.device("cpu"))
    batches(0, 2, 0, first=0)
    with pytest.raises(OSError, match="step 1"):
        batches(1, 2, 0, first=2)
    assert values(batches(2, 2, 0, first=4)) == (2, 2, 0, 4)
    # The batch ahead fails too, but another one is asked for.
    batches = Prefetched(Recording(fails=1), torch.device("cpu"))
    batches(0, 2, 0, first=0)
    assert values(batches(5, 2, 0, first=2)) == (5, 2, 0, 2)
    batches.close()
