"""Division of a batch between processes, and valid numbers of processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptkit.core.errors import TrainingError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.nn.vocabulary import divide_vocabulary
from gptkit.runs.fit import require_divisible
from gptkit.training.config import TrainingSpec
from gptkit.training.parallel.config import ParallelSpec
from gptkit.training.parallel.processes import Processes, joined
from gptkit.training.parallel.tensor import divide
from gptkit.training.step import split
from tests.support.bigram import batch


@pytest.mark.parametrize(
    ("fields", "count", "shape"),
    [
        ({}, 1, (1, 1, 1)),
        ({}, 4, (4, 1, 1)),
        ({"shard": 2}, 4, (2, 2, 1)),
        ({"shard": 4}, 4, (1, 4, 1)),
        ({"data": 2, "shard": 2}, 4, (2, 2, 1)),
        ({"tensor": 2}, 4, (2, 1, 2)),
        ({"shard": 2, "tensor": 2}, 8, (2, 2, 2)),
        ({"tensor": 2}, 3, None),
        ({"shard": 2}, 1, None),
        ({"shard": 2}, 3, None),
        ({"data": 3}, 4, None),
    ],
)
def test_replicas_and_shards_fill_the_processes(
    fields: dict[str, int], count: int, shape: tuple[int, int, int] | None
) -> None:
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


def test_tensor_group_computes_one_part_of_the_batch() -> None:
    whole = batch(3, 8, 0)
    rows = [next(split(whole, 1, Processes(rank, 4, tensor=2)))[0] for rank in range(4)]
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[2], rows[3])
    assert torch.equal(torch.cat([rows[0], rows[2]]), whole[0])


def test_part_without_targets_has_weight_zero() -> None:
    inputs, targets, _ = batch(3, 2, 0)
    targets = targets.clone()
    targets[1] = -100
    ((_, used, _, share),) = split((inputs, targets, None), 1, Processes(1, 2))
    assert share == 0
    assert (used >= 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compile": True}, "training.compile cannot be combined"),
        ({"optimizer": "muon"}, "the optimizer 'muon' needs whole ones"),
    ],
)
def test_what_tensor_parallelism_cannot_use_is_refused(fields: dict[str, Any], message: str) -> None:
    training = validate_data({"parallel": {"tensor": 2}, **fields}, TrainingSpec)
    with pytest.raises(TrainingError) as caught:
        require_divisible(training)
    assert message in caught.value.message


def test_uneven_heads_are_refused_with_their_number() -> None:
    model = GPT({"d_model": 16, "n_layers": 1, "attention": {"n_heads": 3, "d_head": 4}}, 8, device="meta")
    with pytest.raises(TrainingError) as caught:
        divide(model, Processes(0, 2, tensor=2))
    assert "blocks.0.attention has 3 query heads" in caught.value.message


class Alone:
    """A group that is not used."""

    def gather(self, part: torch.Tensor) -> list[torch.Tensor]:
        raise AssertionError

    def add(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError


@pytest.mark.parametrize(
    ("model", "divided", "whole"),
    [
        ({}, {"embedding.table.weight", "head.weight"}, []),
        ({"head": {"name": "linear", "tied": True, "bias": True}}, {"embedding.table.weight", "head.bias"}, []),
        ({"head": "multi-token"}, {"embedding.table.weight", "head.head.weight"}, []),
        ({"vocab_size": 13}, set(), ["13 token ids have no 2 equal parts"] * 2),
    ],
)
def test_tables_of_token_ids_are_divided(model: dict[str, Any], divided: set[str], whole: list[str]) -> None:
    fields = {"d_model": 8, "n_layers": 1, "context_length": 8, "attention": {"n_heads": 2}, "vocab_size": 12, **model}
    built = GPT(fields)
    tables = {name: parameter.clone() for name, parameter in built.named_parameters()}
    shards, reasons = divide_vocabulary(built, 2, 1, Alone())
    assert shards.keys() == divided
    assert len(reasons) == len(whole)
    assert all(message in reason for reason, message in zip(reasons, whole, strict=True))
    for name in divided:
        assert torch.equal(built.get_parameter(name), tables[name].chunk(2)[1])


def test_table_of_a_head_that_declares_nothing_stays_whole() -> None:
    model = GPT(
        {
            "d_model": 8,
            "n_layers": 1,
            "context_length": 8,
            "attention": {"n_heads": 2},
            "head": {"name": "linear", "tied": True},
        },
        12,
    )

    class Undeclared(type(model.head)):  # type: ignore[misc]
        vocabulary_table = None

    model.head.__class__ = Undeclared
    shards, (reason,) = divide_vocabulary(model, 2, 0, Alone())
    assert not shards
    assert reason == "embedding (a module that uses the table cannot be divided)"
