"""Layers at equal distances, by a period and an offset."""

from __future__ import annotations

from collections.abc import Sequence

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_period", "write_period"]


def read_period(config: ExternalConfig, kind: str, period: int, offset: int, n_layers: int) -> list[bool]:
    """Return whether each layer is one of every `period`, from `offset` on.

    Args:
        config: the configuration; it has the keys ``<kind>_layer_period`` and ``<kind>_layer_offset``.
        kind: `attn` or `expert`.
        period, offset: their defaults.
        n_layers: number of layers.
    """
    period, key = config.integer(f"{kind}_layer_period", period), f"{kind}_layer_offset"
    offset = config.integer(key, offset)
    if not 0 <= offset < period:
        config.refuse(key, f"it should be from 0 to {kind}_layer_period - 1, {period - 1}")
    return [index % period == offset for index in range(n_layers)]


def write_period(kind: str, chosen: Sequence[bool]) -> dict[str, int]:
    """Return the keys that `read_period` reads.

    Raises:
        ValueError: the layers do not follow from a period and an offset.
    """
    for period in range(1, len(chosen) + 2):
        for offset in range(period):
            if [index % period == offset for index in range(len(chosen))] == list(chosen):
                return {f"{kind}_layer_period": period, f"{kind}_layer_offset": offset}
    raise ValueError(f"layers with {kind} do not occur at equal distances")
