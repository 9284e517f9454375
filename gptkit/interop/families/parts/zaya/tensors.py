"""Tensors of ZAYA1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gptkit.kinds.family import Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["zaya_rules"]

ATTENTION = {
    "previous_value": "qkv_proj.v_proj_delayed",
    "feature_conv": "qkv_proj.conv_qk_depthwise",
    "head_conv": "qkv_proj.conv_qk_grouped",
    "key_scale": "qk_norm.temp",
    "output": "o_proj",
}
ROUTER = {
    "down": "down_proj",
    "previous_scale": "router_states_scale",
    "norm": "router_mlp.norm",
    "hidden.0": "router_mlp.fc1",
    "hidden.1": "router_mlp.fc2",
    "scores": "router_mlp.out_proj",
    "selection_bias": "balancing_biases",
}
SCALES = {"attention": "post_attention_residual_scale", "feedforward": "post_mlp_residual_scale"}
TERMS = {"output": "hidden_states", "stream": "residual"}
LEAVES = {"weight": "scale", "bias": "bias"}


class Projections(Layout):
    """Separate projections of queries, keys, and the values of the current token; the native one has their rows in order."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        import torch

        return torch.cat(list(parts))

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        import torch

        heads = layer.attention.head_shape()
        keys = heads.n_kv_heads * heads.d_head
        return list(torch.split(tensor, [heads.n_heads * heads.d_head, keys, keys // 2]))


def zaya_rules() -> list[Rule]:
    """Return the rules of attention, router, experts, and of the scales of the residual stream."""
    own, layer = "blocks.*", "model.layers.*"
    packed = Rule(f"{own}.attention.qkv", f"{layer}.self_attn.qkv_proj.{{q_proj,k_proj,v_proj_current}}", Projections())
    return [
        packed,
        *(Rule(f"{own}.attention.{native}", f"{layer}.self_attn.{name}") for native, name in ATTENTION.items()),
        *(Rule(f"{own}.feedforward.router.{native}", f"{layer}.mlp.gate.{name}") for native, name in ROUTER.items()),
        *(
            Rule(f"{own}.feedforward.experts.{name}.weight", f"{layer}.mlp.experts.{name}_proj")
            for name in ("gate_up", "down")
        ),
        *(
            Rule(f"{own}.{branch}_{place}_norm.{leaf}", f"{layer}.{scale}.{term}_{name}")
            for branch, scale in SCALES.items()
            for place, term in TERMS.items()
            for leaf, name in LEAVES.items()
        ),
        *(Rule(f"embedding.norm.{leaf}", f"model.input_hidden_states_{name}") for leaf, name in LEAVES.items()),
    ]
