"""Rejection of trainings whose batch cannot fit in memory, before allocation."""

from __future__ import annotations

from gptkit.model.plan import refuse_unless_fits
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.precision import pick_device

__all__ = ["refuse_oversized_batch"]


def refuse_oversized_batch(spec: ExperimentSpec, n_processes: int = 1) -> None:
    """Raise an error if the inputs of the blocks of one step do not fit in memory.

    This is a lower bound: the batch's token ids, and for each part the input of every block at two bytes per element.

    Args:
        spec: the spec.
        n_processes: the number of processes that share each batch.

    Raises:
        CapacityError: memory is insufficient; gives the numbers.
    """
    training, model = spec.training, spec.model
    rows = max(1, training.batch_size // training.grad_accumulation // n_processes)
    ids = 2 * 8 * training.batch_size * spec.window
    inputs = 2 * rows * spec.window * model.d_model * model.n_layers
    what = f"training.batch_size: a step of {rows:,} data windows of {spec.window:,} tokens at a time"
    refuse_unless_fits(ids + inputs, what, pick_device(training.device))
