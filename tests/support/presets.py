"""Shipped presets, shrunk: the same architectures, a few thousand times smaller."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from gptkit.model.gpt import GPT
from gptkit.presets.catalog import find
from gptkit.runs.opening import open_spec

__all__ = ["SMALL", "V", "shrink", "small_preset"]

V = 61
SMALL: dict[str, Any] = {
    "d_model": 32,
    "context_length": 256,
    "vocab_size": V,
    "n_heads": 4,
    "n_kv_heads": 2,
    "n_value_heads": 8,
    "d_head": 8,
    "d_hidden": 16,
    "n_experts": 8,
    "n_groups": 4,
    "k": 2,
    "top_groups": 2,
    "kv_rank": 12,
    "q_rank": 12,
    "d_nope": 8,
    "d_rotary": 8,
    "d_value": 8,
    "d_key": 8,
    "d_inner": 24,
    "step_rank": 5,
    "window": 24,
    "size": 256,
}


def shrink(value: Any) -> Any:
    """Return the same architecture, a few thousand times smaller."""
    if isinstance(value, dict):
        small = {key: shrink(item) for key, item in value.items()}
        for key, item in value.items():
            if key in SMALL and item is not None:
                small[key] = SMALL[key]
            if key == "repeat":
                small[key] = min(item, 2)
            if key == "fraction" and item < 1:
                small[key] = 0.5
            if key in ("short", "long"):  # a divisor for each rotated pair of features
                small[key] = item[:2]
            if key == "layers" and item is not None:
                small[key] = _first_of_each(small[key])
        return small
    if isinstance(value, list):
        return [shrink(item) for item in value]
    return value


def _first_of_each(layers: list[Any]) -> list[Any]:
    """Return the layers without the third and later entry of the same: patterns of 50 layers have three kinds of them."""
    counts: Counter[str] = Counter()
    kept = []
    for layer in layers:
        same = json.dumps({**layer, "repeat": None}, sort_keys=True)
        counts[same] += 1
        if counts[same] <= 2:
            kept.append(layer)
    return kept


def small_preset(preset: str) -> GPT:
    """Return a small model of the architecture of a shipped preset."""
    data = shrink(open_spec(find(preset)).spec.model.model_dump(mode="json"))
    layers = data["layers"]
    data["n_layers"] = 2 if layers is None else sum(layer["repeat"] for layer in layers)
    return GPT(data, V, seed=3).eval()
