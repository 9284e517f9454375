"""Fixtures: a small model and its batches, for tests of the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gptkit.checkpoint.store import CheckpointStore
from gptkit.training.config import TrainingSpec
from gptkit.training.loop import Trainer
from tests.support.bigram import MakeTrainer, batch, make_model, validation

torch.set_num_threads(1)


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
