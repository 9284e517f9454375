"""Types of layers of Nemotron-H, each of one branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import MAX_LAYERS, ExternalConfig

__all__ = ["BLOCKS", "HARMLESS", "TINY", "of_type", "read_types", "type_of"]

HARMLESS = keys(
    """
    attention_bias chunk_size expand mamba_proj_bias mamba_ssm_cache_dtype moe_shared_expert_overlap
    mtp_hybrid_override_pattern mtp_layers_block_type num_logits_to_keep num_nextn_predict_layers
    partial_rotary_factor rescale_prenorm_residual residual_in_fp32 rope_theta sliding_window time_step_floor
    time_step_limit time_step_max time_step_rank use_mamba_kernels
    """
)
"""Keys of training, of prediction modules, and those that transformers does not read: of positions, which the layers with
attention do not have, and limits of steps but for the lowest."""
BLOCKS = tuple[dict[str, Any], ...](
    {"block": {"name": "single-branch", "branch": each}} for each in ("attention", "feedforward")
)
"""What layers with an attention override, and those with a feed-forward."""
LETTERS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}
"""Types of layers by the letters of `hybrid_override_pattern`."""
FORMER = {"mamba": "linear_attention", "attention": "full_attention"}
"""Types of layers by their former names."""
TINY: dict[str, Any] = {"layers_block_type": list(LETTERS.values()), "n_routed_experts": 4, "n_shared_experts": 1}
TINY |= {"mamba_num_heads": 4, "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 6}
TINY |= {"moe_intermediate_size": 24, "moe_shared_expert_intermediate_size": 20, "moe_latent_size": 16}
"""Keys of a tiny configuration."""


def read_types(config: ExternalConfig) -> list[str]:
    """Return the type of each layer, whose number is that of the layers: a list, or a text with a letter for each."""
    letters = config.text("hybrid_override_pattern", "")
    usual = [LETTERS.get(letter, letter) for letter in letters] or list(LETTERS.values())
    key = config.alias("layers_block_type", "layer_types")
    types = [FORMER.get(each, each) for each in config.items(key, usual)]
    if not 1 <= len(types) <= MAX_LAYERS or not set(types) <= set(LETTERS.values()):
        config.refuse(key, f"it should name {', '.join(LETTERS.values())} for each of 1 to {MAX_LAYERS:,} layers")
    config.value("num_hidden_layers")  # transformers ignores it
    return types


def type_of(layer: Any) -> str:
    """Return the type of a layer.

    Raises:
        AttributeError: its block has two branches.
    """
    if layer.block.branch == "attention":
        return "linear_attention" if layer.attention.name == "mamba2" else "full_attention"
    return "moe" if layer.feedforward.name == "experts" else "mlp"


def of_type(layers: Sequence[Any], *types: str) -> list[Any]:
    """Return the layers of such types."""
    return [layer for layer in layers if type_of(layer) in types]
