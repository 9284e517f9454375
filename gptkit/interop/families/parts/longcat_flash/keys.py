"""Keys of LongCat-Flash."""

from __future__ import annotations

from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["NAMES", "TINY", "check", "write_experts"]

NAMES = {"num_hidden_layers": "num_layers", "intermediate_size": "ffn_hidden_size", "num_experts_per_tok": "moe_topk"}
NAMES |= {"moe_intermediate_size": "expert_ffn_hidden_size"}
TINY: dict[str, Any] = {"num_layers": 2, "num_key_value_heads": 4, "head_dim": 8}
TINY |= {"q_lora_rank": 20, "kv_lora_rank": 12, "qk_rope_head_dim": 8, "qk_nope_head_dim": 10, "v_head_dim": 6}
TINY |= {"moe_topk": 3, "n_routed_experts": 4, "zero_expert_num": 2, "expert_ffn_hidden_size": 24}


def check(config: ExternalConfig) -> None:
    """Refuse what transformers does not compute."""
    config.only("num_hidden_layers", 2 * config.layers("num_layers", 28), why="it should be twice num_layers")
    for key in ("mla_scale_q_lora", "mla_scale_kv_lora"):
        config.only(key, True, why="transformers scales both latents in this family")
    config.only("zero_expert_type", "identity", why="transformers has no others in this family")
    config.only("router_bias", False, why="transformers does not add it")
    config.only("norm_topk_prob", False, why="transformers does not divide the weights by their sum in this family")


def write_experts(experts: Any) -> dict[str, Any]:
    """Return the keys of a layer's experts."""
    return {
        "n_routed_experts": experts.n_experts,
        "zero_expert_num": experts.identity_experts,
        "moe_topk": experts.router.k,
        "routed_scaling_factor": experts.router.scale,
        "expert_ffn_hidden_size": experts.expert.d_hidden,
    }
