"""Conversion of failures of the machine in training to errors that name the field to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gptkit.core.errors import TrainingError
from gptkit.core.memory import explain_exhaustion
from gptkit.training.config import TrainingSpec

__all__ = ["explained"]

_COMPILERS = ("torch._inductor", "torch._dynamo")


@contextmanager
def explained(spec: TrainingSpec) -> Iterator[None]:
    """Raise failed allocations and compilations in the block as errors for the user.

    Raises:
        CapacityError: a training step does not fit in memory.
        TrainingError: torch.compile cannot compile the model.
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
        if not (spec.compile and type(error).__module__.startswith(_COMPILERS)):
            raise
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"training.compile: torch.compile failed: {reason}",
            hint="Install a C++ compiler that works (g++ or clang++; CXX names it), or set training.compile to false.",
        ) from error
