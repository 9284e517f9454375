"""Keys of experts that several architectures have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.common_keys import EXPERTS, KV, RMS, SILU, SIZES
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.parts import HINT, Fixed, Key, Keys, Tied
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["EVERY_LAYER", "SHARED_WIDTH", "SIGMOID", "SOFTMAX", "SPARSE", "OneWidth", "Routed"]

SHARED_WIDTH = Key("expert_shared_feed_forward_length", "shared_expert_intermediate_size")
SPARSE = (Keys((*SIZES, KV, RMS, *EXPERTS)), SILU, Tied)
EVERY_LAYER = Fixed({"mlp_only_layers": [], "decoder_sparse_step": 1}, ignored=("expert_shared_count",))
SOFTMAX, SIGMOID = 1, 2
"""Values of `expert_gating_func`."""


class OneWidth:
    """The width of dense layers in models that have none; it is required by some programs and read by none."""

    def read(self, keys: ExternalConfig, tensors: Any) -> dict[str, Any]:
        expert = keys.integer("expert_feed_forward_length", keys.integer("feed_forward_length", 1))
        return {"intermediate_size": keys.integer("feed_forward_length", expert), "moe_intermediate_size": expert}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        width = Typed("u32", config["moe_intermediate_size"])
        return {"feed_forward_length": width, "expert_feed_forward_length": width}


class Routed:
    """DeepSeek's routed and shared experts after the first dense layers.

    Args:
        gating: the function of scores.
        normed: whether renormalization is a key of the family's configuration.
        groups: whether llama.cpp limits tokens to groups of experts as the family does.
    """

    def __init__(self, gating: int, *, normed: bool, groups: bool) -> None:
        self.gating, self.normed, self.groups = gating, normed, groups

    def read(self, keys: ExternalConfig, tensors: Any) -> dict[str, Any]:
        keys.only("expert_gating_func", self.gating, why="the family has another function")
        if not self.groups:
            for key in ("expert_group_count", "expert_group_used_count"):
                keys.only(key, 1, 0, why="llama.cpp does not limit tokens to groups of experts as the family does")
        result = {
            "n_routed_experts": keys.integer("expert_count"),
            "num_experts_per_tok": keys.integer("expert_used_count"),
            "n_shared_experts": keys.integer("expert_shared_count", 0),
            "moe_intermediate_size": keys.integer("expert_feed_forward_length"),
            "first_k_dense_replace": keys.integer("leading_dense_block_count", 0),
            "routed_scaling_factor": keys.number("expert_weights_scale", 1.0) or 1.0,
            "n_group": keys.integer("expert_group_count", 1) if self.groups else 1,
            "topk_group": keys.integer("expert_group_used_count", 1) if self.groups else 1,
        }
        if self.normed:
            result["norm_topk_prob"] = keys.flag("expert_weights_norm", False)
        else:
            keys.only("expert_weights_norm", False, why="the family does not renormalize")
        return result

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        keys: dict[str, Typed] = {
            "expert_count": Typed("u32", config["n_routed_experts"]),
            "expert_used_count": Typed("u32", config["num_experts_per_tok"]),
            "expert_shared_count": Typed("u32", config["n_shared_experts"]),
            "expert_feed_forward_length": Typed("u32", config["moe_intermediate_size"]),
            "leading_dense_block_count": Typed("u32", config["first_k_dense_replace"]),
            "expert_weights_scale": Typed("f32", config["routed_scaling_factor"]),
            "expert_gating_func": Typed("u32", self.gating),
            "expert_weights_norm": Typed("bool", bool(self.normed and config["norm_topk_prob"])),
        }
        if self.groups and config["n_group"] > 1:
            if config["topk_group"] >= config["n_group"]:
                raise ExternalModelError("llama.cpp requires that tokens choose fewer groups than there are", hint=HINT)
            keys["expert_group_count"] = Typed("u32", config["n_group"])
            keys["expert_group_used_count"] = Typed("u32", config["topk_group"])
        return keys
