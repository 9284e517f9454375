"""Fixtures: a small model and its batches, for tests of the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gptkit.checkpoint.store import CheckpointStore
from gptkit.training.config import TrainingSpec
from gptkit.training.evaluation import Batch
from gptkit.training.loop import Trainer

torch.set_num_threads(1)

VOCABULARY, WIDTH, LENGTH = 13, 8, 6


class Bigram(nn.Module):
    """Bigram model with dropout, a tied table and a buffer."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.out.weight = self.table.weight
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.calls: Tensor

    def forward(self, ids_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None) -> Any:
        self.calls += self.training
        logits = self.out(self.dropout(self.mix(self.table(ids_BT)).tanh()))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=-100)
        return SimpleNamespace(loss=loss)


def make_model(dropout: float = 0.2) -> Bigram:
    torch.manual_seed(7)
    return Bigram(dropout)


def batch(step: int, batch_size: int, seed: int, *, first: int = 0) -> Batch:
    """Return a batch in which the next token is mostly the previous one plus one."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    ids = torch.randint(VOCABULARY, (batch_size, 1), generator=generator) + torch.arange(LENGTH + 1)
    ids = ids % VOCABULARY
    return ids[:, :-1], ids[:, 1:], None


def validation(batch_size: int, max_batches: int) -> Iterator[Batch]:
    return (batch(10_000 + index, batch_size, 0) for index in range(max_batches))


MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(tmp_path: Path) -> MakeTrainer:
    """Return a function that creates a trainer; keywords that the training spec has are set there."""

    def make(name: str = "run", **given: Any) -> Trainer:
        # `callbacks` are objects, as for the trainer; those of the spec are `spec_callbacks`.
        fields = {key: given.pop(key) for key in list(given) if key in TrainingSpec.model_fields and key != "callbacks"}
        fields["callbacks"] = given.pop("spec_callbacks", ())
        defaults: dict[str, Any] = {
            "steps": 10,
            "batch_size": 8,
            "precision": "fp32",
            "device": "cpu",
            "log_every": 3,
            "evaluate_every": 4,
            "evaluate_batches": 2,
            "checkpoint_every": 4,
            "optimizer": {"name": "adamw", "learning_rate": 0.05},
            "schedule": {"name": "cosine", "warmup_steps": 2},
        }
        spec = TrainingSpec.model_validate({**defaults, **fields})
        model = given.pop("model", None) or make_model(given.pop("dropout", 0.2))
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        store = CheckpointStore(directory / "checkpoints", keep=spec.keep_checkpoints)
        arguments: dict[str, Any] = {"train": batch, "validation": validation, "checkpoints": store, **given}
        return Trainer(model, spec, **arguments)

    return make
