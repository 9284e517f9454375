"""Nemotron-H: how its configurations name the types of layers, and the parts of each type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families._common import keys, read_activation, write_activation
from gptkit.interop.families._experts import sparse
from gptkit.kinds.external_config import MAX_LAYERS, ExternalConfig

__all__ = [
    "BLOCKS",
    "FEED",
    "HARMLESS",
    "TINY",
    "of_type",
    "read_dense",
    "read_experts",
    "read_mamba",
    "read_types",
    "write",
]

HARMLESS = keys(
    """
    attention_bias chunk_size expand mamba_proj_bias mamba_ssm_cache_dtype moe_shared_expert_overlap
    mtp_hybrid_override_pattern mtp_layers_block_type num_logits_to_keep num_nextn_predict_layers rescale_prenorm_residual
    residual_in_fp32 sliding_window time_step_floor time_step_limit time_step_max time_step_rank use_mamba_kernels
    """
)
"""Keys of training, of prediction modules, and those that transformers does not read: limits of steps but for the lowest."""

BLOCKS = tuple[dict[str, Any], ...](
    {"block": {"name": "single-branch", "branch": each}} for each in ("attention", "feedforward")
)
"""What layers with an attention override, and those with a feed-forward."""

FEED = {
    "up": "up_proj",
    "down": "down_proj",
    "router.scores": "gate",
    "router.selection_bias": "gate.e_score_correction_bias",
    "latent_down": "fc1_latent_proj",
    "latent_up": "fc2_latent_proj",
    "experts.up": "experts.#.up_proj",
    "experts.down": "experts.#.down_proj",
    "shared.up": "shared_experts.up_proj",
    "shared.down": "shared_experts.down_proj",
}
"""External names of tensors of feed-forwards, dense and of experts, by the native ones."""

LETTERS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}
"""Types of layers by the letters of `hybrid_override_pattern`."""

OLD = {"mamba": "linear_attention", "attention": "full_attention"}
"""Former names of types of layers."""

TINY = {
    "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "ssm_state_size": 6,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 20,
    "moe_latent_size": 16,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
}

_EXPERT_KEYS = keys(
    """
    moe_intermediate_size moe_latent_size moe_shared_expert_intermediate_size n_group n_routed_experts n_shared_experts
    norm_topk_prob num_experts_per_tok routed_scaling_factor topk_group
    """
)

SIZES = {
    "n_heads": ("mamba_num_heads", 128),
    "d_head": ("mamba_head_dim", 64),
    "n_groups": ("n_groups", 8),
    "d_state": ("ssm_state_size", 128),
    "conv_width": ("conv_kernel", 4),
}


def read_types(config: ExternalConfig) -> list[str]:
    """Return the type of each layer, whose number is that of the layers: a list, or a text with a letter for each."""
    letters = config.text("hybrid_override_pattern", "")
    usual = [LETTERS.get(letter, letter) for letter in letters] or ["linear_attention", "moe", "full_attention", "mlp"]
    key = config.alias("layers_block_type", "layer_types")
    types = [OLD.get(each, each) for each in config.items(key, usual)]
    if not 1 <= len(types) <= MAX_LAYERS or not set(types) <= set(LETTERS.values()):
        config.refuse(key, f"it should name {', '.join(LETTERS.values())} for each of 1 to {MAX_LAYERS:,} layers")
    config.value("num_hidden_layers")  # transformers ignores it
    return types


def read_mamba(config: ExternalConfig) -> dict[str, Any]:
    """Return the attention of layers with Mamba-2."""
    return {
        "name": "mamba2",
        **{own: config.integer(*key) for own, key in SIZES.items()},
        "conv_bias": config.flag("use_conv_bias", True),
        "bias": config.flag("use_bias", False),
        "activation": read_activation(config, "mamba_hidden_act", "silu"),
        "step_min": config.number("time_step_min", 0.001),
        "eps": config.number("layer_norm_epsilon", 1e-5),
    }


def read_dense(config: ExternalConfig) -> dict[str, Any]:
    """Return the feed-forward of layers of type mlp."""
    return {
        "name": "mlp",
        "d_hidden": config.integer("intermediate_size", 21504),
        "activation": read_activation(config, "mlp_hidden_act", "relu2"),
        "bias": config.flag("mlp_bias", False),
    }


def read_experts(config: ExternalConfig, dense: dict[str, Any], used: bool) -> dict[str, Any]:
    """Return the feed-forward of layers of type moe, whose experts have the activation of `dense`; it if there are none."""
    if not used:
        for key in _EXPERT_KEYS:
            config.value(key)
        return dense
    config.only("n_shared_experts", 1, why="transformers has one shared expert in this family")
    config.only("mlp_bias", False, why="experts have no biases, and the key is that of other parts too")
    router = {
        "name": "sigmoid",
        "k": config.integer("num_experts_per_tok", 2),
        "selection_bias": True,
        "n_groups": config.integer("n_group", 1),
        "top_groups": config.integer("topk_group", 1),
        "renormalize": config.flag("norm_topk_prob", True),
        "scale": config.number("routed_scaling_factor", 1.0),
    }
    expert = {**dense, "d_hidden": config.integer("moe_intermediate_size", 7688)}
    shared = {**dense, "d_hidden": config.integer("moe_shared_expert_intermediate_size", 7688)}
    n_experts = config.integer("n_routed_experts", 8)
    return sparse(n_experts, router, expert, shared=shared, latent=config.nullable("moe_latent_size"))


def type_of(layer: Any) -> str:
    """Return the type of a layer.

    Raises:
        AttributeError: its block has two branches.
    """
    if layer.block.branch == "attention":
        return "linear_attention" if layer.attention.name == "mamba2" else "full_attention"
    return "moe" if layer.feedforward.name == "experts" else "mlp"


def of_type(layers: Sequence[Any], *types: str) -> list[Any]:
    """The layers of such types."""
    return [layer for layer in layers if type_of(layer) in types]


def write(model: Any) -> dict[str, Any]:
    """Return the keys of types of layers, of Mamba-2 and of feed-forwards."""
    layers = model.layer_specs()
    result: dict[str, Any] = {"layers_block_type": [type_of(layer) for layer in layers]}
    for layer in of_type(layers, "linear_attention")[:1]:
        mamba = layer.attention
        result |= {key: getattr(mamba, own) for own, (key, _) in SIZES.items()}
        result |= {"use_conv_bias": mamba.conv_bias, "use_bias": mamba.bias, "time_step_min": mamba.step_min}
        result |= {"mamba_hidden_act": write_activation(mamba.activation)}
    feedforwards = [layer.feedforward for layer in layers]
    for dense in [each for each in feedforwards if each.name == "mlp"][:1]:
        result |= {"intermediate_size": dense.d_hidden, "mlp_bias": dense.bias}
        result |= {"mlp_hidden_act": write_activation(dense.activation)}
    for experts in [each for each in feedforwards if each.name == "experts"][:1]:
        router = experts.router
        result |= {"n_routed_experts": experts.n_experts, "num_experts_per_tok": router.k, "n_group": router.n_groups}
        result |= {"topk_group": router.top_groups, "norm_topk_prob": router.renormalize, "n_shared_experts": 1}
        result |= {"routed_scaling_factor": router.scale, "moe_latent_size": experts.latent}
        result |= {"moe_intermediate_size": experts.expert.d_hidden, "mlp_bias": False}
        result |= {"moe_shared_expert_intermediate_size": experts.shared.d_hidden}
        result |= {"mlp_hidden_act": write_activation(experts.expert.activation)}
    return result
