"""Settings of the allocators for training: that of the C library on a CPU, and torch's own on a GPU.

A training step allocates and frees the same large tensors again and again. By default, glibc returns each of them to the
operating system, and gets zeroed pages at the next allocation: on a CPU this costs as much time as several passes
over the memory. The settings keep freed memory in the process for the next step.

On a GPU, torch's allocator requests memory in segments. Tensors whose sizes change from step to step (validation, stages,
samples) leave gaps in them, so that memory runs out although enough is free. Segments that can grow have fewer gaps.
"""

from __future__ import annotations

import ctypes
import os
import platform
from importlib.metadata import version

__all__ = ["SWITCH", "keep_freed_memory", "set_allocators", "use_expandable_segments"]

SWITCH = "GPTKIT_ALLOCATOR"
"""Environment variable: `system` leaves the allocators as they are."""

# Numbers of glibc's <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


_TORCH_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""The variables that torch reads when it first uses a GPU: since 2.9, and before."""


def set_allocators() -> None:
    """Set both allocators for training, in this process and those that it starts."""
    keep_freed_memory()
    use_expandable_segments()


def use_expandable_segments() -> bool:
    """Make torch's allocator for CUDA use segments that can grow; return whether that was done.

    It is not if `GPTKIT_ALLOCATOR` is `system`, if torch's own variables set the allocator, or outside of Linux, where torch
    has no such segments. Must be called before torch uses the GPU.
    """
    if platform.system() != "Linux" or os.environ.get(SWITCH) == "system":
        return False
    if any(name in os.environ for name in _TORCH_SETTINGS):
        return False
    major, minor = (int(part) for part in version("torch").split(".")[:2])
    os.environ[_TORCH_SETTINGS[(major, minor) < (2, 9)]] = "expandable_segments:True"
    return True


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory in the process; return whether that was done.

    Nothing is changed on other C libraries, if `GPTKIT_ALLOCATOR` is `system`, or if glibc's own variables
    (`MALLOC_…`, `GLIBC_TUNABLES`) set the allocator.
    """
    if platform.libc_ver()[0] != "glibc" or os.environ.get(SWITCH) == "system":
        return False
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # No allocation is a mapping of its own, and the heap shrinks never and grows in large steps.
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 << 20))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
