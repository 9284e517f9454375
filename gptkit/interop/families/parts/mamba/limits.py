"""Limits of the step sizes of Mamba-2."""

from __future__ import annotations

import math
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_limits", "write_limits"]

INFINITY = {"__float__": "Infinity"}
"""An infinite number, as transformers writes it."""


def read_limits(config: ExternalConfig) -> dict[str, Any]:
    """Return the fields of `mamba2` for `time_step_limit`."""
    limits = [math.inf if limit == INFINITY else limit for limit in config.items("time_step_limit", [0.0, math.inf])]
    if len(limits) != 2 or not all(type(limit) in (int, float) for limit in limits) or not 0 <= limits[0] < limits[1]:
        config.refuse("time_step_limit", "it should be two numbers from 0 on, the smaller one first")
    return {"step_min": limits[0], "step_max": None if math.isinf(limits[1]) else limits[1]}


def write_limits(attention: Any) -> dict[str, Any]:
    """Return `time_step_limit` of a model."""
    if (attention.step_min, attention.step_max) == (0, None):
        return {}  # the default; infinity is not valid JSON
    return {"time_step_limit": [attention.step_min, math.inf if attention.step_max is None else attention.step_max]}
