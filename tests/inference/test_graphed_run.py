"""Which steps a graph serves, with a capture that works on every device; on a GPU also with CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.inference.compiled.graphs import GraphedRun, capture_on_cuda


class Captures:
    """A capture whose replay computes with the tensors that were captured; counts captures and replays."""

    def __init__(self) -> None:
        self.n_captures = self.n_replays = 0

    def __call__(self, function: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], Sequence[Tensor]]:
        self.n_captures += 1
        results = [torch.full_like(result, torch.nan) for result in function()]

        def replay() -> None:
            self.n_replays += 1
            for result, new in zip(results, function(), strict=True):
                result.copy_(new)

        return replay, results


def step(inputs: list[Any]) -> list[Tensor]:
    ids, memory = inputs
    return [memory + ids]


def test_graph_serves_the_steps_with_the_same_tensors() -> None:
    captures = Captures()
    graphed = GraphedRun(step, [0], captures)
    memory, other = torch.zeros(3), torch.ones(3)
    results = [graphed([torch.tensor(float(number)), memory])[0] for number in range(4)]
    assert [result.tolist() for result in results] == [[number] * 3 for number in range(4)]
    assert (captures.n_captures, captures.n_replays) == (1, 3)
    memory.fill_(10)
    assert graphed([torch.tensor(5.0), memory])[0].tolist() == [15] * 3
    # Another tensor, and a longer view of the same one, have graphs of their own.
    assert [graphed([torch.tensor(2.0), other])[0].tolist() for _ in range(2)] == [[3] * 3] * 2
    assert [graphed([torch.tensor(2.0), memory[:2]])[0].tolist() for _ in range(2)] == [[12] * 2] * 2
    assert captures.n_captures == 3
    assert graphed([torch.tensor(1.0), memory])[0].tolist() == [11] * 3
    assert captures.n_captures == 3


def test_inputs_that_are_copied_may_change_their_shape() -> None:
    graphed = GraphedRun(step, [0], Captures())
    memory = torch.zeros(4)
    for shape in ((4,), (1,), (4,), (1,), (4,)):
        assert graphed([torch.ones(shape), memory])[0].tolist() == [1] * 4


def test_few_graphs_are_kept() -> None:
    captures = Captures()
    graphed = GraphedRun(step, [0], captures)
    memories = [torch.full((2,), float(index)) for index in range(20)]
    for _ in range(2):
        for index, memory in enumerate(memories):
            assert graphed([torch.tensor(1.0), memory])[0].tolist() == [index + 1] * 2
    assert captures.n_captures == 0
    for _ in range(2):
        graphed([torch.tensor(1.0), memories[-1]])
    assert captures.n_captures == 1


def test_failing_capture_is_noted_once_and_steps_are_computed(caplog: pytest.LogCaptureFixture) -> None:
    def fails(function: Callable[[], Sequence[Tensor]]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphed = GraphedRun(step, [0], fails)
    memory = torch.zeros(2)
    assert [graphed([torch.tensor(float(number)), memory])[0].tolist() for number in range(5)] == [[n] * 2 for n in range(5)]
    assert [record.message for record in caplog.records] == [
        "decode steps are not captured as CUDA graphs: operation not permitted when stream is capturing"
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_graph_computes_the_same() -> None:
    graphed = GraphedRun(step, [0], capture_on_cuda)
    memory = torch.zeros(3, device="cuda")
    for number in range(5):
        memory.fill_(number)
        assert graphed([torch.tensor(1.0, device="cuda"), memory])[0].tolist() == [number + 1] * 3
