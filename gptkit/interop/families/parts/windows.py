"""Layers with sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.layers import every, read_types
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["all_but_every", "read_windows", "write_windows"]

SLIDING, FULL = "sliding_attention", "full_attention"


def all_but_every(n: int, n_layers: int) -> list[bool]:
    """Return whether each layer has a window where only every n-th one has none."""
    return [not each for each in every(n, n_layers)]


def read_windows(config: ExternalConfig, usual: Sequence[bool]) -> list[bool]:
    """Return whether each layer has a sliding window: `layer_types`, or else `usual`, the family's own pattern."""
    types = [SLIDING if each else FULL for each in usual]
    return [each == SLIDING for each in read_types(config, len(types), types, (SLIDING, FULL))]


def write_windows(model: Any, usual: int | None = None) -> dict[str, Any]:
    """Return `sliding_window` and `layer_types` of a model.

    Args:
        model: the model.
        usual: `sliding_window` of a model without windows, for classes that require the key even then.
    """
    windows = [layer.attention.window for layer in model.layer_specs()]
    return {
        "sliding_window": next((window for window in windows if window), usual),
        "layer_types": [SLIDING if window else FULL for window in windows],
    }
