"""Division of a batch between processes, and valid numbers of processes."""

from __future__ import annotations

import pytest
import torch

from gptkit.core.errors import TrainingError
from gptkit.training.parallel.config import ParallelSpec
from gptkit.training.parallel.processes import Processes, joined
from gptkit.training.step import split
from tests.support.bigram import batch


@pytest.mark.parametrize(
    ("fields", "count", "shape"),
    [
        ({}, 1, (1, 1)),
        ({}, 4, (4, 1)),
        ({"shard": 2}, 4, (2, 2)),
        ({"shard": 4}, 4, (1, 4)),
        ({"data": 2, "shard": 2}, 4, (2, 2)),
        ({"shard": 2}, 1, None),
        ({"shard": 2}, 3, None),
        ({"data": 3}, 4, None),
    ],
)
def test_replicas_and_shards_fill_the_processes(fields: dict[str, int], count: int, shape: tuple[int, int] | None) -> None:
    assert ParallelSpec(**fields).shape(count) == shape


def test_invalid_number_of_processes_is_reported_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(TrainingError) as caught, joined(ParallelSpec(shard=2), torch.device("cpu")):
        pass
    assert "training.parallel requires a multiple of 2 processes, but the training has 1" in caught.value.message
    assert "torchrun --nproc-per-node 2 -m gptkit train" in str(caught.value)


@pytest.mark.parametrize(("accumulation", "count"), [(1, 2), (2, 2), (2, 4)])
def test_processes_divide_the_batch(accumulation: int, count: int) -> None:
    whole = batch(3, 8, 0)
    targets = whole[1].clone()
    targets[0, 2:] = -100
    targets[7] = -100
    whole = whole[0], targets, None
    parts = [list(split(whole, accumulation, Processes(rank, count))) for rank in range(count)]
    assert {len(part) for part in parts} == {accumulation}
    rows = torch.cat([parts[rank][index][0] for index in range(accumulation) for rank in range(count)])
    assert torch.equal(rows, whole[0])
    assert sum(share for part in parts for *_, share in part) == pytest.approx(1)


def test_part_without_targets_has_weight_zero() -> None:
    inputs, targets, _ = batch(3, 2, 0)
    targets = targets.clone()
    targets[1] = -100
    ((_, used, _, share),) = split((inputs, targets, None), 1, Processes(1, 2))
    assert share == 0
    assert (used >= 0).all()
