"""When a training waits for its checkpoints."""

from __future__ import annotations

from gptkit.checkpoint.joint import PendingCheckpoint
from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.errors import CheckpointError
from gptkit.training.callback import Callbacks
from gptkit.training.parallel.processes import Processes
from gptkit.training.state import TrainingState

__all__ = ["Saver"]

_PATIENCE = 20.0
"""Seconds to wait, after an error, for a checkpoint that is being committed."""


class Saver:
    """The checkpoints of a training: when they are saved, and when the training waits for them.

    Where each process holds a share of the model, all of them write in the background, one checkpoint at a time. Otherwise
    the main process writes, and the others wait.

    Args:
        checkpoints: the checkpoint store.
        processes: the processes of the training.

    Attributes:
        step: number of steps of the latest checkpoint, committed or not.
    """

    def __init__(self, checkpoints: CheckpointStore, processes: Processes) -> None:
        self._checkpoints = checkpoints
        self._processes = processes
        self._pending: PendingCheckpoint | None = None
        self.step = 0

    def save(self, state: TrainingState, callbacks: Callbacks) -> None:
        """Save a checkpoint, or begin to; collective.

        Raises:
            CheckpointError: it or the previous one cannot be written. All processes raise it.
        """
        self.finish(callbacks)
        evaluated = callbacks.evaluation_weights()
        if self._processes.builds_empty:
            self._pending = state.save_jointly(self._checkpoints, callbacks, evaluated, self._processes)
            self.step = state.step
            return
        path, error = self._checkpoints.path(state.step), None
        try:
            state.save(self._checkpoints, callbacks, evaluated, write=self._processes.is_main)
        except CheckpointError as raised:
            error = raised
        messages = self._processes.texts("" if error is None else error.message)
        if any(messages):
            raise error or CheckpointError(next(filter(None, messages)), common=True)
        self.step = state.step
        callbacks.on_checkpoint(state.step, path)

    def advance(self, callbacks: Callbacks) -> None:
        """Continue with the checkpoint that is written in the background, if any, without waiting; collective.

        Raises:
            CheckpointError: it cannot be written. All processes raise it.
        """
        if self._pending is not None and self._pending.advance():
            self.finish(callbacks)

    def finish(self, callbacks: Callbacks) -> None:
        """Wait for the checkpoint that is written in the background, if any; collective.

        Raises:
            CheckpointError: it cannot be written. All processes raise it.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            callbacks.on_checkpoint(pending.step, pending.finish())

    def abandon(self) -> None:
        """Wait, after an error, for the commit of a checkpoint that all processes have written."""
        if self._pending is not None:
            self._pending.abandon(_PATIENCE)
