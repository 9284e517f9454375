"""Configurations of every component, and every attention with every position that it accepts or refuses."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from gptkit.core.registry import Registry, default_registry

V = 61
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "rotary": [
        {},
        {"layout": "interleaved", "fraction": 0.5},
        {"scaling": {"name": "linear", "factor": 3}},
        {"scaling": {"name": "dynamic", "original_context_length": 12}},
        {"scaling": {"name": "yarn", "factor": 4, "original_context_length": 12}},
        {"scaling": {"name": "llama3", "original_context_length": 12}},
        {"scaling": {"name": "longrope", "long": (3.0,), "original_context_length": 12}},
    ],
    "query-temperature": [{"strength": 0.5, "interval": 4}],
    "shaw": [{"max_distance": 5}, {"values": False}],
    "t5-bias": [{"n_buckets": 8, "max_distance": 20}, {"shared": False}],
    "multi-head": [
        {"n_heads": 4},
        {"n_heads": 3, "d_head": 8, "window": 5, "qkv_bias": True},
        {"n_heads": 4, "chunk": 6},
        {"n_heads": 4, "softcap": 5.0, "qk_norm": "rms"},
        {"n_heads": 4, "sinks": True, "window": 5, "output_gate": True},
        {"n_heads": 4, "qk_norm": "rms", "qk_norm_order": "after", "clip_qkv": 0.5},
    ],
    "grouped-query": [
        {"n_heads": 4, "n_kv_heads": 2},
        {"n_heads": 4, "n_kv_heads": 1, "window": 4, "qk_norm": "rms", "qk_norm_width": "full"},
    ],
    "differential": [
        {"n_heads": 2, "qkv_bias": True},
        {"n_heads": 4, "n_kv_heads": 2, "window": 5, "norm": "none"},
    ],
    "single-head": [{"d_head": 12}, {"window": 5}],
    "stacked-heads": [{"n_heads": 4}, {"n_heads": 2, "window": 5, "qkv_bias": True}],
    "latent": [
        {"n_heads": 3, "kv_rank": 10, "d_nope": 6, "d_rotary": 8, "d_value": 5},
        {"n_heads": 3, "kv_rank": 10, "q_rank": 7, "d_nope": 6, "d_rotary": 8, "d_value": 5, "bias": True, "window": 5},
    ],
    "gated-delta": [
        {"n_heads": 2, "d_key": 8, "d_value": 8},
        {"n_heads": 2, "n_value_heads": 4, "d_key": 6, "d_value": 10, "conv_width": 3},
    ],
    "simple": [{}, {"scaled": True, "window": 5}],
}


def component(kind: str, fields: dict[str, Any], registry: Registry | None = None) -> Any:
    return (registry or default_registry()).component(kind, fields["name"])


def variants(kind: str, registry: Registry | None = None) -> list[dict[str, Any]]:
    """Return every component of a kind in several configurations: those above, else its examples."""
    registry = registry or default_registry()
    return [
        {"name": name, **fields}
        for name in registry.names(kind)
        for fields in VARIANTS.get(name) or registry.component(kind, name).examples or [{}]
    ]


def pairs(registry: Registry | None = None) -> list[Any]:
    """Return every attention of a registry, by default of the installed components, with every position that it accepts."""
    return [
        pytest.param(attention, position, id=_label(attention, position))
        for attention, position in _product(registry)
        if _accepts(attention, position, registry) and not _scales_kept(attention, position, registry)
    ]


def refused_pairs(registry: Registry | None = None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return every attention with every position that it does not accept."""
    return [pair for pair in _product(registry) if not _accepts(*pair, registry)]


def _product(registry: Registry | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(itertools.product(variants("attention", registry), variants("position", registry)))


KEEPS_ROTATED = ("compressed", "pooled-sparse")
"""Attentions that keep rotated entries, and so refuse positions that depend on the length of the text."""


def _accepts(attention: dict[str, Any], position: dict[str, Any], registry: Registry | None) -> bool:
    uses = component("position", position, registry).uses - {"embed"}
    return bool(uses <= component("attention", attention, registry).accepts)


def _scales_kept(attention: dict[str, Any], position: dict[str, Any], registry: Registry | None) -> bool:
    spec = component("position", position, registry).model_validate(position)
    return attention["name"] in KEEPS_ROTATED and spec.depends_on_length


def _label(*parts: dict[str, Any]) -> str:
    return "-".join(str(value) for part in parts for value in part.values()).replace(" ", "")


def ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))
