"""What the last bits of a training's results depend on besides its spec: device, number of threads and torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["conditions", "deviation"]


def conditions(device: torch.device) -> dict[str, Any]:
    """Return the conditions of a training on a device, as plain data."""
    return {"device": device.type, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}


def deviation(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """Return how the conditions of a resumed training differ from the recorded ones, and how to restore them.

    The number of threads is compared for trainings on the CPU only.

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
    elif current["device"] == "cpu" and recorded["threads"] != current["threads"]:
        before.append(f"with {recorded['threads']} thread{'' if recorded['threads'] == 1 else 's'}")
        now.append(f"with {current['threads']}")
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
