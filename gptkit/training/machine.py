"""What the last bits of a training's results depend on besides its spec: device, processes, threads and torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["conditions", "deviation"]


def conditions(device: torch.device) -> dict[str, Any]:
    """Return the conditions of a training on a device, as plain data."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {
        "device": device.type,
        "processes": torch.distributed.get_world_size() if distributed else 1,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def deviation(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """Return how the conditions of a resumed training differ from the recorded ones, and how to restore them.

    The number of threads is compared for trainings on the CPU only, and the number of processes if it was recorded.

    Args:
        recorded: result of `conditions` when the checkpoint was saved.
        current: result of `conditions` now.

    Returns:
        A clause; None without a difference.
    """
    before, now, remedies = [], [], []
    if recorded["device"] != current["device"]:
        before.append(f"on {recorded['device']}")
        now.append(f"on {current['device']}")
        remedies.append(f"set training.device={recorded['device']}")
    processes = recorded.get("processes", current["processes"])
    if processes != current["processes"]:
        before.append(f"in {_count(processes, 'process')}")
        now.append(f"in {_count(current['processes'], 'process')}")
        remedies.append("start it without torchrun" if processes == 1 else f"start {processes} processes with torchrun")
    if current["device"] == recorded["device"] == "cpu" and recorded["threads"] != current["threads"]:
        before.append(f"with {_count(recorded['threads'], 'thread')}")
        now.append(f"with {_count(current['threads'], 'thread')}")
        remedies.append(f"set OMP_NUM_THREADS={recorded['threads']}")
    if recorded["torch"] != current["torch"]:
        before.append(f"with torch {recorded['torch']}")
        now.append(f"with torch {current['torch']}")
        remedies.append(f"install torch=={recorded['torch']}")
    if not before:
        return None
    return (
        f"was trained {' and '.join(before)}, and continues {' and '.join(now)}: results are not bit-identical; "
        f"{' and '.join(remedies)} to continue exactly"
    )


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"
