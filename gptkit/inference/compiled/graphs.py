"""`GraphedRun`: a compiled step on a GPU whose kernels are launched as one CUDA graph.

A decode step of a small model consists of hundreds of short kernels, and launching each takes longer than computing it. A
graph has fixed addresses and shapes: it serves all steps that read and write the same tensors, so one is captured for every
64 tokens of a text, when the view of the keys grows.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["GraphedRun", "capture_on_cuda"]

_log = logging.getLogger("gptkit")

_MOST_GRAPHS = 8
"""Graphs that are kept at once: those of the texts that are decoded in turn."""

Run = Callable[[list[Any]], Sequence[Tensor]]
Capture = Callable[[Callable[[], Sequence[Tensor]]], tuple[Callable[[], None], Sequence[Tensor]]]
"""Record what a function launches, without computing it; return what computes it, and the tensors it writes results to."""

_Key = tuple[tuple[int, tuple[int, ...]], ...]


class _Graph:
    """A captured step: its copies of the inputs that change, what computes it, and its results."""

    def __init__(self, copies: dict[int, Tensor], replay: Callable[[], None], results: Sequence[Tensor]) -> None:
        self.copies, self.replay, self.results = copies, replay, results


class GraphedRun:
    """The function of a compiled step, as a graph from the second call with the same tensors on.

    The first call computes as usual, which also initializes what kernels need; a capture computes nothing. If a capture
    fails, all steps are computed as usual, with one note in the log.

    Args:
        run: the function, from the inputs to the results in a list.
        copied: the inputs that are other tensors in each step: ids, padding and numbers of tokens. All others keep their
            addresses, or have a graph of their own.
        capture: what records a graph.
    """

    def __init__(self, run: Run, copied: Sequence[int], capture: Capture) -> None:
        self._run, self._capture = run, capture
        self._copied = frozenset(copied)
        self._graphs: OrderedDict[_Key, _Graph | None] = OrderedDict()
        self._failed = False

    def __call__(self, inputs: list[Any]) -> Sequence[Tensor]:
        """Compute a step; the results are the caller's."""
        if self._failed:
            return self._run(inputs)
        key = self._key(inputs)
        if key not in self._graphs:
            self._graphs[key] = None
            while len(self._graphs) > _MOST_GRAPHS:
                self._graphs.popitem(last=False)
            return self._run(inputs)
        self._graphs.move_to_end(key)
        graph = self._graphs[key]
        if graph is None:
            try:
                graph = self._graphs[key] = self._captured(inputs)
            except RuntimeError as error:
                self._failed = True
                self._graphs.clear()
                _log.warning("decode steps are not captured as CUDA graphs: %s", str(error).partition("\n")[0])
                return self._run(inputs)
        for index, copy in graph.copies.items():
            copy.copy_(inputs[index])
        graph.replay()
        return [result.clone() for result in graph.results]

    def _key(self, inputs: list[Any]) -> _Key:
        return tuple(
            (0 if index in self._copied else tensor.data_ptr(), tuple(tensor.shape)) for index, tensor in enumerate(inputs)
        )

    def _captured(self, inputs: list[Any]) -> _Graph:
        copies = {index: inputs[index].clone() for index in self._copied}
        own = [copies.get(index, tensor) for index, tensor in enumerate(inputs)]
        replay, results = self._capture(lambda: self._run(own))
        return _Graph(copies, replay, results)


def capture_on_cuda(function: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], Sequence[Tensor]]:
    """Capture what a function launches as a CUDA graph."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function()
    return graph.replay, results
