"""Reflection's Beam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts import experts
from gptkit.interop.families.parts.beam import read_kinds, write_kinds
from gptkit.interop.layouts import HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["BeamFamily"]
NAMES = {
    "attention_output_norm": "post_attention_layernorm",
    "feedforward_norm": "pre_feedforward_layernorm",
    "feedforward_output_norm": "post_feedforward_layernorm",
    "attention.gate_bias": "self_attn.gate_bias",
}


class BeamFamily(Decoder):
    """Beam: terms of equal shares between norms, gated heads, windows with rotary or neither, experts in groups."""

    name: Literal["beam"] = "beam"
    model_type: ClassVar[str] = "beam"
    architecture: ClassVar[str] = "BeamForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | experts.INERT
    d_head: ClassVar[int | None] = 128
    attention_biases: ClassVar[bool] = False
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"num_experts": 16, "n_group": 4, "topk_group": 2},)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("attention_bias", False, why="the gate has one bias per head, and here one per feature if others do")
        own = {"output_gate": True, "gate_bias": True, "qk_norm": self.read_norm(config)}
        return {**super().read_attention(config), **own}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "sandwich", "depth_scaled": True}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        key = "final_logit_softcapping"
        return {"softcap": config.maybe(key) if key in config.data else config.number(key, 30.0)}

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {**read_kinds(config, config.layers("num_hidden_layers"))[0]["position"]}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        expert = experts.dense(super().read_feedforward(config), config.integer("moe_intermediate_size", 2560))
        router = {"name": "sigmoid", "selection_bias": True, "k": config.integer("num_experts_per_tok", 8)}
        router |= experts.read_groups(config, (8, 4), scale=2.5)
        return experts.sparse(config.integer("num_experts", 256), router, expert)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        plain = {"feedforward": super().read_feedforward(config)}
        layers = zip(read_kinds(config, n_layers), experts.read_sparse(config, n_layers, 3), strict=True)
        return [layer if each else {**layer, **plain} for layer, each in layers]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result, plain = experts.first_of(layers, "experts"), experts.first_of(layers, "gated")
        return {
            **experts.write_experts(layers, "num_experts", "moe_intermediate_size"),
            "intermediate_size": (plain or result.expert).d_hidden,
            **experts.write_sparse(layers),
            **experts.write_groups(result.router),
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {**write_kinds(super().config(model), model), "final_logit_softcapping": model.head.softcap}

    def rules(self, model: Any) -> list[Rule]:
        return [
            *(Rule(f"blocks.*.{native}", f"model.layers.*.{external}") for native, external in NAMES.items()),
            Rule("blocks.*.attention.qkv", "model.layers.*.self_attn.{q,k,v,gate}_proj", HEADS),
            *experts.expert_rules("model.layers.*.mlp"),
            *super().rules(model),
        ]
