"""Settings of the C library's allocator for training on a CPU.

A training step allocates and frees the same large tensors again and again. By default, glibc returns each of them to the
operating system, and gets zeroed pages at the next allocation: on a CPU this costs as much time as several passes
over the memory. The settings keep freed memory in the process for the next step.
"""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = ["SWITCH", "keep_freed_memory"]

SWITCH = "GPTKIT_ALLOCATOR"
"""Environment variable: `system` leaves the allocator as it is."""

# Numbers of glibc's <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


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
