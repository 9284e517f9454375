"""The device of a training, and the precision of its matrix products."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch

from gptkit.core.errors import TrainingError
from gptkit.ops.dtypes import has_bf16

__all__ = ["autocast", "has_bf16", "pick_device", "pick_precision"]


def pick_device(choice: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        TrainingError: the device is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if choice == "auto":
        return torch.device(next(name for name, present in available.items() if present))
    if not available[choice]:
        raise TrainingError(
            f"training.device is {choice!r}, which torch does not find on this machine", hint="Choose cpu, or auto."
        )
    return torch.device(choice)


def pick_precision(choice: str, device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products: bf16 or fp32. With fp8, it is that of all but the projections of the blocks."""
    if choice == "auto":
        choice = "bf16" if has_bf16(device) else "fp32"
    return {"fp8": torch.bfloat16, "bf16": torch.bfloat16, "fp32": torch.float32}[choice]


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """Return the autocast context of this precision."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=precision)
