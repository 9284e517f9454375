"""Configurations near that of a tiny external model: sizes, options and scalings drawn at random, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import read_model
from gptkit.kinds.family import FamilySpec
from gptkit.model.spec import ModelSpec
from gptkit.testing.configurations import SMALL, base_config, keys_read

__all__ = ["near_configs"]

DEPTHS = (1, 2, 3, 4, 5, 6, 8, 12, 24, 26, 27, 32, 40, 46, 48, 60, 62, 64)
"""Numbers of layers, many of released models, by which programs recognize variants of an architecture."""
MOST_LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
SIZES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), (32, 64, 96, 128)),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), (1, 2, 4, 8)),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), (1, 2, 4, 8)),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_hidden_size", "moe_intermediate_size"), (16, 40, 96, 128)),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"), (48, 64, 100, 4096)),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), (2, 4, 6, 8)),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "moe_top_k"), (1, 2, 3, 4)),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "v_head_dim", "qk_nope_head_dim"), (8, 16, 24, 32, 64)),
    **dict.fromkeys(("sliding_window",), (1, 3, 9, 16, 40, 64)),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "n_shared_experts"), (0, 1, 2, 3)),
    **dict.fromkeys(("n_group", "topk_group"), (1, 2, 4)),
}
"""Values of sizes; a configuration that contradicts itself is refused, and another one drawn."""
TYPES = ("full_attention", "sliding_attention", "linear_attention", "conv", "chunked_attention")


def near_configs(family: FamilySpec, tiny: Mapping[str, Any], seed: str) -> Iterator[tuple[str, ModelSpec]]:
    """Yield endless models that a family reads, each with what differs from its tiny one."""
    base = base_config(family, SMALL, tiny)
    first = read_model(family, base)
    number = 0
    while True:
        chance = Random(f"{seed} {number}")
        number += 1
        config, changes = dict(base), dict[str, Any]()
        try:
            for _ in range(chance.choice([1, 2, 3, 5])):
                path, value = _change(chance, family, config)
                config = _with(config, path, value)
                changes[".".join(path)] = value
            model = read_model(family, config)
        except ExternalModelError:
            continue
        if model != first:
            yield ", ".join(f"{key}={value}" for key, value in changes.items()), model


def _change(chance: Random, family: FamilySpec, config: Mapping[str, Any]) -> tuple[tuple[str, ...], Any]:
    """Draw a key that the family reads, and another value."""
    keys = [key for key in keys_read(family, config) if key.path[-1] not in ("vocab_size", "model_type")]
    key = chance.choice(keys)
    name = key.path[-1]
    if name in MOST_LAYERS:
        return key.path, chance.choice(DEPTHS)
    if name in SIZES:
        return key.path, chance.choice(SIZES[name])
    if name in ("layer_types",):
        n_layers = next(config[each] for each in MOST_LAYERS if each in config)
        period, rest, last = chance.randint(1, 6), *chance.sample(TYPES[:4], 2)
        return key.path, [last if (index + 1) % period == 0 else rest for index in range(n_layers)]
    if name in ("rope_scaling", "rope_parameters"):
        base = {"rope_theta": chance.choice([100.0, 10000.0, 500000.0])} if name == "rope_parameters" else {}
        return key.path, {**base, **_scaling(chance)}
    if key.type is float:
        number = float(key.value or 1.0)
        return key.path, chance.choice([number * 2, number / 2, number * 100, 0.5, 1.0, 3.0, 0.0])
    values = list(key.alternatives())
    return key.path, chance.choice(values) if values else key.value


def _scaling(chance: Random) -> dict[str, Any]:
    """Draw a scaling of rotary positions."""
    kind = chance.choice(["linear", "yarn", "llama3", "default"])
    factor = chance.choice([1.0, 1.5, 4.0, 32.0])
    trained = chance.choice([8, 16, 32, 48])
    if kind == "yarn":
        options: dict[str, Any] = {
            "beta_fast": chance.choice([16.0, 32.0]),
            "beta_slow": chance.choice([1.0, 2.0]),
            "mscale": chance.choice([0.5, 1.0]),
            "mscale_all_dim": chance.choice([0.0, 0.7, 1.0]),
            "attention_factor": chance.choice([1.0, 1.2]),
            "truncate": chance.random() < 0.5,
        }
        chosen = chance.sample(sorted(options), chance.choice([0, 1, 1, 2]))
        return {
            "rope_type": kind,
            "factor": factor,
            "original_max_position_embeddings": trained,
            **{name: options[name] for name in chosen},
        }
    if kind == "llama3":
        low, high = chance.choice([(1.0, 4.0), (1.0, 4.0), (0.5, 2.0)])
        return {
            "rope_type": kind,
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": trained,
        }
    return {"rope_type": kind, **({"factor": factor} if kind == "linear" else {})}


def _with(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**config, path[0]: value}
    return {**config, path[0]: _with(config.get(path[0]) or {}, path[1:], value)}
