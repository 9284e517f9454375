"""Conversion of failures of the machine in training to errors that name the field to change."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.errors import TrainingError
from gptkit.core.memory import explain_exhaustion
from gptkit.training.config import TrainingSpec
from gptkit.training.parallel.processes import Processes, is_lost_connection

__all__ = ["explained", "not_finite", "warn_of_no_targets"]

_log = logging.getLogger("gptkit")

_COMPILERS = ("torch._inductor", "torch._dynamo")


@contextmanager
def explained(spec: TrainingSpec, processes: Processes, checkpoints: CheckpointStore) -> Iterator[None]:
    """Raise failed allocations and compilations, and lost processes, in the block as errors for the user.

    Args:
        spec: the training section.
        processes: the processes of the training.
        checkpoints: the checkpoints that are left.

    Raises:
        CapacityError: a training step does not fit in memory.
        TrainingError: torch.compile cannot compile the model, or another process has ended.
    """
    rows = spec.batch_size // spec.grad_accumulation
    try:
        with explain_exhaustion(
            f"training.batch_size: a step with {rows:,} windows at a time",
            "Lower training.batch_size or training.window, raise training.grad_accumulation, or set "
            "training.recompute to blocks.",
        ):
            yield
    except RuntimeError as error:
        if processes.count > 1 and is_lost_connection(error):
            raise _lost_process(error, processes, checkpoints) from error
        if not (spec.compile and type(error).__module__.startswith(_COMPILERS)):
            raise
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"training.compile: torch.compile failed: {reason}",
            hint="Install a C++ compiler that works (g++ or clang++; CXX names it), or set training.compile to false.",
        ) from error


def _lost_process(error: RuntimeError, processes: Processes, checkpoints: CheckpointStore) -> TrainingError:
    reason = str(error).strip().splitlines()[0]
    latest = checkpoints.latest()
    rescue = "No checkpoint was saved yet" if latest is None else f"The last checkpoint is intact: {latest}"
    return TrainingError(
        f"process {processes.rank} lost the connection to another of the {processes.count} processes: {reason}",
        hint=f"{rescue}. Read the message of the process that ended first, then start all of them again with --resume.",
    )


def not_finite(
    spec: TrainingSpec, precision: torch.dtype, checkpoints: CheckpointStore, step: int, loss: float, norm: float
) -> TrainingError:
    """Return the error for a loss or gradient that is not finite, which all processes raise.

    Args:
        spec: the training section.
        precision: the precision of matrix products.
        checkpoints: the checkpoints that are left.
        step: the number of the step.
        loss: its loss.
        norm: the norm of its gradient.
    """
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradients are not finite (their norm is {norm})"
    latest = checkpoints.latest()
    rescue = f"The last good checkpoint is {latest}. " if latest else "No checkpoint was saved yet. "
    advice = ["lower training.optimizer.learning_rate", "give the schedule more warmup_steps"]
    if spec.clip is None:
        advice.append("set training.clip to 1.0")
    if spec.precision == "fp8":
        advice.append("set training.precision to bf16")
    elif precision != torch.float32:
        advice.append("set training.precision to fp32")
    hint = f"{rescue}To train on, {', or '.join(advice)}."
    return TrainingError(f"{what} at step {step}", hint=hint, common=True)


def warn_of_no_targets(step: int) -> None:
    """Warn that a step had no target."""
    _log.warning(
        "step %d: all tokens of its data windows are masked, so nothing is learned from them (prompts longer than a data "
        "window?); raise training.window or training.batch_size, or shorten the prompts. Later steps are not reported.",
        step,
    )
