"""Rotary positions as keys that old and new versions of transformers read."""

from __future__ import annotations

from typing import Any

__all__ = ["FLAT", "as_parameters", "by_type", "write_rope", "write_rotary", "write_two"]

FLAT = ("rope_theta", "rope_scaling", "partial_rotary_factor")
"""Keys of one position for all layers."""


def write_rope(position: Any) -> dict[str, Any]:
    """Return the keys of a `rotary` position that old and new versions of transformers read."""
    rotary = write_rotary(position)
    if rotary["rope_type"] == "default":
        # A null `rope_scaling` stands for the class's own default in new versions, which may be a scaling.
        flat: dict[str, Any] = {key: rotary[key] for key in ("rope_theta", "partial_rotary_factor") if key in rotary}
        return {**flat, "rope_scaling": None, "rope_parameters": rotary}
    flat = {key: rotary.pop(key) for key in ("rope_theta", "partial_rotary_factor") if key in rotary}
    return {**flat, "rope_scaling": rotary}


def write_two(layers: Any) -> dict[str, Any]:
    """Return the keys that `read_two` reads, for the layers of a model."""
    full = next((layer.position for layer in layers if not layer.attention.window), layers[0].position)
    local = next((layer.position for layer in layers if layer.attention.window), full)
    return {"rope_parameters": {"full_attention": write_rotary(full), "sliding_attention": write_rotary(local)}}


def by_type(config: dict[str, Any], layers: Any) -> dict[str, Any]:
    """Return a configuration with the keys of `write_two` in place of those of one position for all layers."""
    return {**{key: value for key, value in config.items() if key not in FLAT}, **write_two(layers)}


def write_rotary(position: Any) -> dict[str, Any]:
    """Return the mapping of rope parameters of a `rotary` position."""
    written: dict[str, Any] = {"rope_theta": position.base, "rope_type": "default"}
    if position.fraction != 1:
        written["partial_rotary_factor"] = position.fraction
    scaling: Any = position.scaling
    if scaling is None:
        return written
    names = {
        "factor": "factor",
        "fraction": "partial_rotary_factor",
        "original_context_length": "original_max_position_embeddings",
        "low_frequency_factor": "low_freq_factor",
        "high_frequency_factor": "high_freq_factor",
        "short": "short_factor",
        "long": "long_factor",
    }
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in scaling}
    name = fields.pop("name")
    if name == "dynamic":
        fields.pop("original_context_length")
    return {**written, "rope_type": name, **{names.get(k, k): v for k, v in fields.items() if v is not None}}


def as_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the scaling in `rope_parameters`, for a class that does not read `rope_scaling`."""
    result = dict(config)
    if scaling := result.pop("rope_scaling", None):
        result["rope_parameters"] = {"rope_theta": result["rope_theta"], **scaling}
    return result
