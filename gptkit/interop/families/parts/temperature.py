"""Layers without positions whose queries grow with the logarithm of their number, as in Llama 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_temperature", "write_temperature"]


def read_temperature(config: ExternalConfig) -> dict[str, Any] | str:
    """Return the position of these layers."""
    tuning = {"strength": config.number("attn_scale", 0.1), "interval": config.integer("floor_scale", 8192)}
    return {"name": "query-temperature", **tuning} if config.flag("attn_temperature_tuning", True) else "none"


def write_temperature(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of these layers, if a model has some."""
    tuned = next((layer.position for layer in layers if layer.position.name == "query-temperature"), None)
    tuning = {} if tuned is None else {"attn_scale": tuned.strength, "floor_scale": tuned.interval}
    return {**tuning, "attn_temperature_tuning": tuned is not None}
