"""Threads in place of the processes of tensor parallelism."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from gptkit.nn.part_group import PartGroup

__all__ = ["in_parts"]

T = TypeVar("T")

_PATIENCE = 60
"""Seconds to wait for the other threads."""


class _Exchange:
    """Exchange of one tensor per thread.

    Args:
        count: number of threads.
    """

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=_PATIENCE)
        self.parts = [torch.empty(0)] * count


class _ThreadGroup:
    """The group as one of the threads uses it."""

    def __init__(self, exchange: _Exchange, index: int) -> None:
        self._exchange = exchange
        self._index = index

    def gather(self, part: Tensor) -> list[Tensor]:
        self._exchange.parts[self._index] = part.detach().clone()
        self._exchange.barrier.wait()
        parts = list(self._exchange.parts)
        self._exchange.barrier.wait()
        return parts

    def add(self, x: Tensor) -> Tensor:
        return torch.stack(self.gather(x)).sum(0)


def in_parts(count: int, compute: Callable[[int, PartGroup], T]) -> list[T]:
    """Call a function in threads, each with its index and the group of all, and return the results.

    Raises:
        Exception: the first one that a thread raised.
    """
    exchange = _Exchange(count)
    errors: list[BaseException] = []

    def run(index: int) -> T | None:
        try:
            return compute(index, _ThreadGroup(exchange, index))
        except threading.BrokenBarrierError:
            return None  # another thread has raised an exception
        except BaseException as error:
            errors.append(error)
            exchange.barrier.abort()
            return None

    with ThreadPoolExecutor(count) as threads:
        results = list(threads.map(run, range(count)))
    if errors:
        raise errors[0]
    return [result for result in results if result is not None]
