"""Laguna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts import experts as moe
from gptkit.interop.families.parts.rope import read_rotary, write_two
from gptkit.interop.families.parts.windows import read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["LagunaFamily"]
HEADS, ROPE, SHARED = "num_attention_heads_per_layer", "rope_parameters", "shared_expert_intermediate_size"


class LagunaFamily(Decoder):
    """Laguna: numbers of heads by layer, a softplus gate per head, windows with positions of their own, many experts."""

    name: Literal["laguna"] = "laguna"
    model_type: ClassVar[str] = "laguna"
    architecture: ClassVar[str] = "LagunaForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | moe.INERT
    d_head: ClassVar[int | None] = 128
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"sliding_window": 6, "layer_types": ["full_attention"] * 4},)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        fraction = 1.0 if ROPE in config else 0.5  # transformers' defaults, of the key and of one within it
        return read_rotary(config.section(ROPE).section("full_attention"), config, 500000.0, fraction, beside=False)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("gating", True, "per-head", why="gptkit has one gate per head in this family")
        return {**super().read_attention(config), "qk_norm": self.read_norm(config), "head_gate": "softplus"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("moe_apply_router_weight_on_input", False, why="transformers has not either")
        config.only("moe_router_logit_softcapping", 0.0, 0, why="gptkit has no such router")
        expert = moe.dense(super().read_feedforward(config), config.integer("moe_intermediate_size", 512))
        k, scale = config.integer("num_experts_per_tok", 8), config.number("moe_routed_scaling_factor", 1.0)
        router = {"name": "sigmoid", "selection_bias": True, "k": k, "scale": scale}
        shared = moe.dense(expert, config.integer(SHARED, 512))
        return moe.sparse(config.integer("num_experts", 256), router, expert, shared=shared)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        heads = config.items(HEADS, [config.integer("num_attention_heads")] * n_layers)
        if len(heads) != n_layers or not all(type(each) is int and each > 0 for each in heads):
            config.refuse(HEADS, f"it should have a number of heads for each of {n_layers} layers")
        rope = read_rotary(config.section(ROPE).section("sliding_attention"), config, 10000.0, beside=False)
        window, local = config.integer("sliding_window", 512), {"scaling": None, "fraction": 1.0, **rope}
        full, plain = self.read_position(config), {"feedforward": super().read_feedforward(config)}
        slides, sparse = read_windows(config, [False] * n_layers), moe.read_sparse(config, n_layers, 1)
        layers: list[dict[str, Any]] = [
            {"attention": {"n_heads": n, "window": window if each else None}, "position": local if each else full}
            for n, each in zip(heads, slides, strict=True)
        ]
        return [layer if each else {**layer, **plain} for layer, each in zip(layers, sparse, strict=True)]

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        result = {**super().config(model), **write_windows(model), **moe.write_sparse(layers), **write_two(layers)}
        del result["rope_theta"], result["rope_scaling"]
        result.pop("partial_rotary_factor", None)
        return {**result, "gating": True, HEADS: [layer.attention.n_heads for layer in layers]}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        experts, plain = (moe.first_of(layers, each) for each in ("experts", "gated"))
        return {
            **moe.write_experts(layers, "num_experts", "moe_intermediate_size"),
            "intermediate_size": (plain or experts.expert).d_hidden,
            SHARED: experts.shared.d_hidden,
            "moe_routed_scaling_factor": experts.router.scale,
        }

    def rules(self, model: Any) -> list[Rule]:
        layer = "model.layers.*"
        bias = Rule("blocks.*.feedforward.router.selection_bias", f"{layer}.mlp.experts.e_score_correction_bias")
        gate = Rule("blocks.*.attention.head_gate", f"{layer}.self_attn.g_proj")
        return [gate, bias, *moe.expert_rules(f"{layer}.mlp"), *super().rules(model)]
