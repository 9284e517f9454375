"""State of a training in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.checkpoint.sharding import shard_like
from gptkit.checkpoint.store import CheckpointStore, load_weights, read_callbacks, read_state, restore_optimizer
from gptkit.training.callback import Callbacks

__all__ = ["TrainingState"]


@dataclass
class TrainingState:
    """State of a training.

    Random numbers, the learning rate and the order of the data are functions of the seed, the step and the number of
    data windows read, so these numbers are all that is stored of them.

    Attributes:
        model: the model.
        optimizer: its optimizer.
        step: number of completed steps.
        windows: number of data windows read; the position in the order of the data.
        since_log: loss and gradient norm of each step since the last line of metrics.
        callbacks: the callbacks' states of a checkpoint, until `restore_callbacks`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    windows: int = 0
    since_log: list[list[float]] = field(default_factory=list)
    callbacks: dict[str, Any] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Return the counters of the loop, as plain data."""
        return {"windows": self.windows, "since_log": self.since_log}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the counters of the loop."""
        self.windows = state["windows"]
        self.since_log = state["since_log"]

    def save(
        self, store: CheckpointStore, callbacks: Callbacks, evaluated: Mapping[str, Tensor] | None, *, write: bool
    ) -> Path:
        """Write a checkpoint; collective if the model is sharded.

        Args:
            store: the checkpoint store.
            callbacks: their states are saved too.
            evaluated: weights to evaluate and generate with, if they differ from the trained ones.
            write: True in the process that writes.

        Raises:
            CheckpointError: it cannot be written.
        """
        return store.save(
            self.step,
            self.model,
            self.optimizer,
            self.state_dict(),
            callbacks=callbacks.state_dict(),
            evaluated=evaluated,
            write=write,
        )

    def load(self, checkpoint: Path) -> None:
        """Restore the state of a checkpoint; without an optimizer's state, only its weights.

        Raises:
            CheckpointError: it is damaged, or does not fit the model or the optimizer.
        """
        state = read_state(checkpoint, verify=True)
        load_weights(self.model, checkpoint, training=True)
        if state["optimizer"] is None:
            return
        restore_optimizer(self.optimizer, self.model, checkpoint, state)
        self.step = state["step"]
        self.load_state_dict(state["training"])
        self.callbacks = read_callbacks(checkpoint, state)

    def restore_callbacks(self, callbacks: Callbacks) -> None:
        """Restore the callbacks' states of the checkpoint."""
        if self.callbacks:
            callbacks.load_state_dict(shard_like(self.callbacks, callbacks.state_dict()))
            self.callbacks = {}
