"""The device of a training, and the precision of its matrix products."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch

from gptkit.core.errors import TrainingError

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


def has_bf16(device: torch.device) -> bool:
    """Return whether the device supports bf16 matrix products natively, so that bf16 is faster than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    try:
        supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False
    # oneDNN also reports support if it converts; only these instructions are faster.
    instructions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_sve_supported")
    tests: list[Any] = [getattr(torch.cpu, name) for name in instructions if hasattr(torch.cpu, name)]
    return supported and (not tests or any(test() for test in tests))


def pick_precision(choice: str, device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products: bf16 or fp32."""
    if choice == "auto":
        choice = "bf16" if has_bf16(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[choice]


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """Return the autocast context of this precision."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=precision)
