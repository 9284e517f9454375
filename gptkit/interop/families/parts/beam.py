"""Layers of Beam: a window and a rotation, or neither and queries that grow with a power of the position."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.rope import FLAT, read_rotary, write_rotary
from gptkit.interop.families.parts.windows import FULL, SLIDING, all_but_every, read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_kinds", "write_kinds"]

TEMPERATURE: dict[str, Any] = {"name": "query-temperature", "growth": "power", "strength": 0.1, "interval": 2048}
"""The position of layers without a rotation; its numbers are in no key."""


def read_kinds(config: ExternalConfig, n_layers: int) -> list[dict[str, Any]]:
    """Return the position of each layer, and its window; every sixth layer and the last one have none by default."""
    slides = read_windows(config, [*all_but_every(6, n_layers)[:-1], False])
    window = {"attention": {"window": config.integer("sliding_window", 512)}}
    kinds = {False: {"position": _position(config, FULL)}} if False in slides else {}
    if True in slides:
        kinds[True] = {**window, "position": _position(config, SLIDING)}
    return [kinds[each] for each in slides]


def _position(config: ExternalConfig, kind: str) -> dict[str, Any]:
    """Return the position of the layers of a type: `rope_parameters` has a mapping of it, or null for no rotation."""
    sections = config.section("rope_parameters")
    named = "rope_parameters" in config
    if named and kind not in sections.data:
        config.refuse("rope_parameters", f"it should have {kind}, which is null where these layers have no rotation")
    if sections.value(kind) is None and (named or kind == FULL):
        return TEMPERATURE
    section = sections.section(kind)
    section.only("partial_rotary_factor", 1.0, 1, why="transformers rotates whole heads in this family")
    return {"scaling": None, **read_rotary(section, config, 10000.0, beside=False)}


def write_kinds(config: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return a configuration with the keys that `read_kinds` reads, in place of those of one position for all layers."""
    kinds = {SLIDING if layer.attention.window else FULL: layer.position for layer in model.layer_specs()}
    rotary = {kind: write_rotary(each) if each.name == "rotary" else None for kind, each in kinds.items()}
    written = {key: value for key, value in config.items() if key not in FLAT}
    return {**written, **write_windows(model), "rope_parameters": rotary}
