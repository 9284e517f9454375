"""Peak memory of a measurement."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path

import torch

__all__ = ["PeakMemory"]

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak memory that was allocated since this object was created: on CUDA by torch, on a CPU resident memory.

    Linux only for the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._base = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._base = torch.cuda.memory_allocated(device)
            return
        _release_free_memory()
        try:
            _RESET.write_text("5")  # sets the peak to the present value
        except OSError:
            self._base = -1
            return
        self._base = _read("VmRSS:") or -1

    @property
    def bytes(self) -> int | None:
        """The peak in bytes; None if this system does not report it."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._base
        peak = _read("VmHWM:")
        return None if self._base < 0 or peak is None or self._device.type != "cpu" else max(0, peak - self._base)


def _release_free_memory() -> None:
    """Return the heap's free pages to the system: a measurement that used them again would seem to need less."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _read(key: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
