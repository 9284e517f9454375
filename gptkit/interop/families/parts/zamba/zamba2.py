"""Keys of Zamba2: its recurrence, and the branches of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.activations import read_activation
from gptkit.interop.families.parts.rope import read_rope, write_rope
from gptkit.interop.families.parts.zamba.branch import read_attention, write_branch
from gptkit.interop.families.parts.zamba.layers import HYBRID, LINEAR, read_hybrid
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["TINY", "read_layers", "read_mamba", "write_branches", "write_mamba"]

TINY = {"layers_block_type": [HYBRID, LINEAR, HYBRID, HYBRID], "num_mem_blocks": 2}
TINY |= {"n_mamba_heads": 4, "mamba_d_state": 6, "mamba_ngroups": 2, "adapter_rank": 3, "num_hidden_layers": 4}
SIZES = {"n_heads": ("n_mamba_heads", 8), "n_groups": ("mamba_ngroups", 1), "d_state": ("mamba_d_state", 64)}
SIZES |= {"conv_width": ("mamba_d_conv", 4)}
DEFAULT_TYPES = [HYBRID if index in (*range(6, 48, 6), 47, 51) else LINEAR for index in range(54)]


def read_mamba(config: ExternalConfig) -> dict[str, Any]:
    """Return the recurrence of all layers; its norm and limits are fixed, apart from the smallest step."""
    sizes = {own: config.integer(*key) for own, key in SIZES.items()}
    n_values = config.integer("mamba_expand", 2) * config.integer("hidden_size", 2560)
    bias, step = config.flag("add_bias_linear", False), config.number("time_step_min", 0.001)
    return {"name": "mamba2", **sizes, "d_head": n_values // max(1, sizes["n_heads"]), "bias": bias, "step_min": step}


def write_mamba(mamba: Any, d_model: int) -> dict[str, Any]:
    """Return the keys of the recurrence."""
    sizes = {key: getattr(mamba, own) for own, (key, _) in SIZES.items()}
    sizes |= {"mamba_expand": mamba.n_heads * mamba.d_head // d_model}
    return {**sizes, "add_bias_linear": mamba.bias, "time_step_min": mamba.step_min}


def read_layers(config: ExternalConfig, n_layers: int) -> list[dict[str, Any]]:
    """Return what each layer overrides: a block with a branch, of the groups in turn."""
    hybrid, count = read_hybrid(config, n_layers, DEFAULT_TYPES), max(1, config.integer("num_mem_blocks", 1))
    block, numbers = _branch(config), iter(range(n_layers))
    return [{"block": {**block, "group": next(numbers) % count}} if each else {} for each in hybrid]


def _branch(config: ExternalConfig) -> dict[str, Any]:
    d_model, n_heads = config.integer("hidden_size", 2560), config.integer("num_attention_heads", 32)
    attention = read_attention(config, d_model, n_heads, config.integer("num_key_value_heads", n_heads))
    rank, adapts = config.integer("adapter_rank", 128), config.flag("use_shared_attention_adapter", False)
    if adapts and attention["n_kv_heads"] != n_heads:
        config.refuse("num_key_value_heads", "the adapters of transformers require as many as num_attention_heads")
    if adapts and attention["d_head"] != 2 * d_model // max(1, n_heads):
        config.refuse("attention_head_dim", "the adapters of transformers require 2 · hidden_size / num_attention_heads")
    rotary = read_rope(config, partial=False)
    return {
        "name": "shared-branch",
        "attention": attention,
        "position": rotary if config.flag("use_mem_rope", False) else "none",
        "feedforward": {
            "name": "gated",
            "activation": read_activation(config, "hidden_act", "gelu"),
            "d_hidden": config.integer("intermediate_size", 0) or 4 * d_model,
            "bias": config.flag("add_bias_linear", False),
        },
        "attention_rank": rank if adapts else None,
        "feedforward_rank": rank,
    }


def write_branches(blocks: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the branches, of the layers that have one."""
    first = blocks[0]
    return {
        **write_branch(first),
        "num_mem_blocks": 1 + max(block.group for block in blocks),
        "use_shared_attention_adapter": first.attention_rank is not None,
        "adapter_rank": first.feedforward_rank,
        "use_mem_rope": first.position.name != "none",
        **(write_rope(first.position) if first.position.name == "rotary" else {}),
    }
