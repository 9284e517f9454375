"""Shipped presets, shrunk: the same architectures, a few thousand times smaller."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from typing import Any

import pytest

from gptkit.model.gpt import GPT
from gptkit.presets.catalog import find
from gptkit.runs.opening import open_spec

__all__ = ["DISTINCT", "SMALL", "V", "marked", "parts", "shrink", "small_layout", "small_preset"]

V = 61
SMALL: dict[str, Any] = {
    "d_model": 32,
    "table_rows": 30,
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
    "sliding_window": 24,
    "output_groups": 2,
    "output_rank": 6,
    "size": 256,
}
DISTINCT = (
    *("gpt2", "modern", "gemma3-1b", "deepseek-v3", "gpt-oss-20b", "bloom-560m", "llama4-scout", "qwen3-next-80b-a3b"),
    *("gemma4-e2b", "command-a-moe", "nemotron-3-nano-30b-a3b", "gpt-neo-125m", "minimax-text-01", "nanochat-d12"),
    *("olmo3-7b", "flint", "gemma3n-e4b", "falcon-h1-0.5b", "kimi-linear-48b", "phi3.5-moe", "axk1", "deepseek-v3.2"),
    *("gemma2-2b", "granite-moe-swa", "ling-3-flash", "mimo-v2-flash", "mpt-7b", "olmo-hybrid-7b", "glm-4.5-air", "glm-5"),
    *("granite-4.0-h-tiny", "laguna-xs", "mamba-codestral-7b", "olmo-1b", "olmoe-1b-7b", "opt-350m", "persimmon-8b"),
    *("phi4-mini", "apertus-8b", "book", "ernie-4.5-21b-a3b", "falcon-rw-1b", "internlm3-8b", "jais-2-8b", "kolibri1"),
    *("lfm2-1.2b", "mistral-small-4", "phi3-mini", "stablelm-2-1.6b", "trinity-mini", "gemma4-26b-a4b", "hy4-preview"),
    *("recurrentgemma-2b", "dots3-note", "minimax-m3", "falcon-mamba-7b", "gpt-neox-japanese-2.7b", "hrm-text-1b"),
    *("lfm3-1.7b", "ctrl", "gemma4-12b", "jamba-v0.1", "dbrx", "mamba-2.8b", "xglm-564m"),
    *("xlstm-7b", "bitnet-2b", "deepseek-v4", "diffllama-1b", "modernbert-decoder-150m", "longcat-flash", "jetmoe-8b"),
    *("rwkv-4-169m", "beam-501b-a23b", "axk2-light", "zamba2-2.7b", "zaya1-8b", "inkling", "inkling-2-small"),
    *("zamba-7b", "qwen4-exp"),
)
"""Presets that together have every part of all presets: each component with its options, wherever it is (`parts`)."""


def marked(presets: Iterable[str], fast: Container[str] = (), *, turn: int = 0, of: int = 1) -> list[Any]:
    """Return presets as parameters: some for the fast tests, the distinct ones slow, the others for the night.

    Args:
        presets: names of presets.
        fast: those of the fast tests.
        turn: which of the distinct ones are slow if several tests of the same code take turns; others are for the night.
        of: number of these tests.
    """
    slow = DISTINCT[turn::of]
    return [
        preset if preset in fast else pytest.param(preset, marks=pytest.mark.slow if preset in slow else pytest.mark.nightly)
        for preset in presets
    ]


def shrink(value: Any, each: int = 2) -> Any:
    """Return the same architecture, a few thousand times smaller.

    Args:
        value: a spec or a part of it.
        each: the largest number of equal layers.
    """
    if isinstance(value, dict):
        small = {key: shrink(item, each) for key, item in value.items()}
        for key, item in value.items():
            if key in SMALL and item is not None:
                small[key] = SMALL[key]
            if key == "repeat":
                small[key] = min(item, each)
            if key == "blocks" and value.get("name") == "hierarchical":  # of each stack; elsewhere, those that are attended
                small[key] = min(item, each)
            if key == "zero_experts" and item:  # a group, beside those of the others
                small[key] = 4
            if key == "router" and isinstance(item, dict) and item.get("always"):  # besides those to choose from
                small["n_experts"] = SMALL["n_experts"] + item["always"]
            if key == "fraction" and item < 1:
                small[key] = 0.5
            if key in ("short", "long"):  # a divisor for each rotated pair of features
                small[key] = item[:2]
            if key == "layers" and item is not None:
                small[key] = _first_of_each(small[key], each)
        return small
    if isinstance(value, list):
        return [shrink(item, each) for item in value]
    return value


def _first_of_each(layers: list[Any], count: int) -> list[Any]:
    """Return the first entries of each layer: patterns of 50 layers have three kinds of them."""
    counts: Counter[str] = Counter()
    kept = []
    for layer in layers:
        same = json.dumps({**layer, "repeat": None}, sort_keys=True)
        counts[same] += 1
        if counts[same] <= count:
            kept.append(layer)
    return kept


def small_layout(preset: str, each: int = 2) -> dict[str, Any]:
    """Return the model section of a small model of the architecture of a shipped preset; two layers if all are equal."""
    data: dict[str, Any] = shrink(open_spec(find(preset)).spec.model.model_dump(mode="json"), each)
    layers = data["layers"]
    data["n_layers"] = 2 if layers is None else sum(layer["repeat"] for layer in layers)
    return data


def small_preset(preset: str, each: int = 2) -> GPT:
    """Return a small model of the architecture of a shipped preset, with at most `each` equal layers of a pattern."""
    return GPT(small_layout(preset, each), V, seed=3).eval()


def parts(preset: str) -> set[tuple[str, ...]]:
    """Return the components of a preset with their options, numbers apart: where each is, and what it is."""
    return set(_parts(small_layout(preset), ()))


def _parts(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, list):
        for item in value:
            yield from _parts(item, place)
    if isinstance(value, dict):
        options = {key: _option(item) for key, item in value.items() if not isinstance(item, (dict, list))}
        if "name" in value:
            yield (*place, json.dumps(options, sort_keys=True))
        for key, item in value.items():
            yield from _parts(item, (value["name"], key) if "name" in value else (*place, key))


def _option(value: Any) -> Any:
    return 0 if isinstance(value, (int, float)) and not isinstance(value, bool) else value
