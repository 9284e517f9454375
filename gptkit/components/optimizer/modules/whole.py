"""Requirement of optimizers that combine the numbers of a matrix."""

from __future__ import annotations

import torch

from gptkit.core.errors import TrainingError

__all__ = ["require_whole"]


def require_whole(name: str, optimizer: torch.optim.Optimizer) -> None:
    """Raise an error if parameters are sharded over processes.

    Args:
        name: the name of the component.
        optimizer: the optimizer with the parameters.

    Raises:
        TrainingError: the parameters are sharded.
    """
    if any(hasattr(parameter, "full_tensor") for group in optimizer.param_groups for parameter in group["params"]):
        raise TrainingError(
            f"training.optimizer: {name} does not support parameters that are sharded over processes",
            hint="Set training.parallel.shard to 1, or choose the optimizer adamw.",
        )
