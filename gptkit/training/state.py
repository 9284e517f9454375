"""State of a training in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.checkpoint.entries import STATE
from gptkit.checkpoint.joint import Participants, PendingCheckpoint
from gptkit.checkpoint.safetensors import cause, damaged
from gptkit.checkpoint.sharding import parts_of, shard_like
from gptkit.checkpoint.states import pack
from gptkit.checkpoint.store import CheckpointStore, load_weights, read_callbacks, read_state, restore_optimizer
from gptkit.core.errors import CheckpointError
from gptkit.data.mixing import Mixture
from gptkit.training.callback import Callbacks
from gptkit.training.machine import conditions

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
        tokens: number of tokens trained on, with repetitions.
        mixtures: the mixtures of the data that have begun, in order; none while the weights of the data apply.
        since_log: loss and gradient norm of each step since the last line of metrics.
        callbacks: the callbacks' states of a checkpoint, until `restore_callbacks`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    windows: int = 0
    tokens: int = 0
    mixtures: list[Mixture] = field(default_factory=list)
    since_log: list[list[float]] = field(default_factory=list)
    callbacks: dict[str, Any] = field(default_factory=dict)
    _checkpoint: Path | None = None

    def mix(self, weights: Mapping[str, float] | None) -> None:
        """Draw the next data windows with these weights of sources; None for those of the data."""
        if weights != (self.mixtures[-1].weights if self.mixtures else None):
            self.mixtures.append(Mixture(self.windows, None if weights is None else dict(weights)))

    def state_dict(self) -> dict[str, Any]:
        """Return the counters of the loop and the conditions of the training, as plain data."""
        mixtures = [[mixture.first, mixture.weights] for mixture in self.mixtures]
        counters = {"windows": self.windows, "tokens": self.tokens, "mixtures": mixtures, "since_log": self.since_log}
        return {**counters, "conditions": conditions(next(self.model.parameters()).device)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the counters of the loop."""
        self.windows = _whole(state["windows"])
        self.tokens = _whole(state.get("tokens", 0))  # not stored by versions before 0.1
        self.mixtures = [
            Mixture(_whole(first), None if weights is None else {name: float(weight) for name, weight in weights.items()})
            for first, weights in state.get("mixtures", [])
        ]
        self.since_log = [[float(number) for number in numbers] for numbers in state["since_log"]]

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

    def save_jointly(
        self,
        store: CheckpointStore,
        callbacks: Callbacks,
        evaluated: Mapping[str, Tensor] | None,
        participants: Participants,
    ) -> PendingCheckpoint:
        """Begin a checkpoint that all processes write in the background, as `CheckpointStore.save_jointly`; collective."""
        return store.save_jointly(
            self.step,
            self.model,
            self.optimizer,
            self.state_dict(),
            participants,
            callbacks=callbacks.state_dict(),
            evaluated=evaluated,
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
        try:
            self.load_state_dict(state["training"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise damaged(checkpoint / STATE, f"training: {cause(error)}") from None
        self.callbacks = read_callbacks(checkpoint, state)
        self._checkpoint = checkpoint

    def restore_callbacks(self, callbacks: Callbacks) -> None:
        """Restore the callbacks' states of the checkpoint.

        Raises:
            CheckpointError: they do not fit the callbacks, or a state cannot be stored, which would end the training at its
                first checkpoint.
        """
        if self.callbacks:
            states = parts_of(self.model, self.callbacks)
            try:
                callbacks.load_state_dict(shard_like(states, callbacks.state_dict()))
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                place = STATE if self._checkpoint is None else self._checkpoint / STATE
                raise CheckpointError(
                    f"{place}: the states of the callbacks do not fit: {type(error).__name__}: {error}",
                    hint="Resume with the callbacks and the plugins that the run was started with.",
                ) from error
            self.callbacks = {}
        for name, state in callbacks.state_dict().items():
            pack(state, "state", f"callback {name}", (), lambda _, tensor: tensor)


def _whole(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{number!r:.60} is not a number of windows or tokens")
    return number
