"""Layers of ZAYA1: all tokens or a window, each type with a rotation of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.layers import read_types
from gptkit.interop.families.parts.rope import FLAT, read_rotary, write_rotary
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_kinds", "read_position", "write_kinds"]

FULL, SLIDING = "hybrid", "hybrid_sliding"
ROPE = "rope_parameters"
BASES = {FULL: 5000000.0, SLIDING: 10000.0}


def read_position(config: ExternalConfig, kind: str = FULL) -> dict[str, Any]:
    """Return the position of the layers of a type: `rope_parameters` has a mapping of it."""
    sections = config.section(ROPE)
    # The released file has the type of all rotations beside the mappings; transformers removes it.
    sections.only("rope_type", "default", why="the mappings of the types of layers have it")
    named = config.value(ROPE) is not None
    if named and sections.value(kind) is None:
        config.refuse(ROPE, f"it should have a mapping for {kind}")
    # transformers' defaults differ, of the whole key and of one within it.
    return {
        "scaling": None,
        "fraction": 1.0,
        **read_rotary(sections.section(kind), config, BASES[kind], 1.0 if named else 0.5, beside=False),
    }


def read_kinds(config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
    """Return what each layer overrides: layers with a window have a position of their own."""
    types = read_types(config, n_layers, [FULL] * n_layers, (FULL, SLIDING))
    window = config.maybe("sliding_window")
    if SLIDING not in types:
        config.section(ROPE).value(SLIDING)  # which no layer uses
        return [{}] * n_layers
    if window is None:
        config.refuse("sliding_window", f"layers of the type {SLIDING} require it")
    local = {"attention": {"sliding_window": config.integer("sliding_window")}, "position": read_position(config, SLIDING)}
    return [local if each == SLIDING else {} for each in types]


def write_kinds(config: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return a configuration with the keys that `read_kinds` reads, in place of those of one position for all layers."""
    layers = model.layer_specs()
    types = [SLIDING if layer.attention.sliding_window else FULL for layer in layers]
    positions = {FULL: model.position, **{kind: layer.position for kind, layer in zip(types, layers, strict=True)}}
    windows = [layer.attention.sliding_window for layer in layers if layer.attention.sliding_window]
    return {
        **{key: value for key, value in config.items() if key not in FLAT},
        "layer_types": types,
        "sliding_window": windows[0] if windows else None,
        ROPE: {kind: write_rotary(positions.get(kind, positions[FULL])) for kind in (FULL, SLIDING)},
    }
