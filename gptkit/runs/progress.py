"""Progress of the training of a run."""

from __future__ import annotations

from gptkit.checkpoint.store import CheckpointStore, read_state
from gptkit.runs.directory import RunDirectory
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.metrics import Metrics

__all__ = ["training_progress"]


def training_progress(directory: RunDirectory, spec: ExperimentSpec) -> dict[str, float]:
    """Return the progress of a run's training.

    Returns:
        ``step`` and ``tokens`` of the newest checkpoint (a data window counts with its full length); ``loss`` and
        ``validation_loss`` as recorded last, and ``lowest_loss`` and ``lowest_validation_loss``; missing ones are omitted.
    """
    numbers: dict[str, float] = {}
    latest = CheckpointStore(directory.checkpoints).latest()
    if latest is not None:
        state = read_state(latest, quantized=True)
        numbers["step"] = state["step"]
        numbers["tokens"] = state["training"].get("windows", 0) * spec.window
    metrics = Metrics.read(directory.metrics)
    for name in ("loss", "validation_loss"):
        last, lowest = metrics.last(name), metrics.best(name)
        if last is not None and lowest is not None:
            numbers |= {name: last[1], f"lowest_{name}": lowest[1]}
    return numbers
