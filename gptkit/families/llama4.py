"""Llama 4, the text models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.families._common import every
from gptkit.families._decoder import Decoder
from gptkit.families._experts import INERT, dense, expert_rules, first_of, sparse, write_experts
from gptkit.families.layouts import TRANSPOSED
from gptkit.kinds.family import Rule
from gptkit.kinds.foreign import ForeignConfig

__all__ = ["Llama4Family"]


class Llama4Family(Decoder):
    """Llama 4 (text): chunked attention, every fourth layer whole and without positions, one expert besides a shared."""

    name: Literal["llama4"] = "llama4"
    model_type: ClassVar[str] = "llama4_text"
    architecture: ClassVar[str] = "Llama4ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | {"for_llm_compressor"}
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    base: ClassVar[float] = 500000.0

    def read_position(self, config: ForeignConfig) -> dict[str, Any]:
        return {**super().read_position(config), "layout": "interleaved"}

    def read_attention(self, config: ForeignConfig) -> dict[str, Any]:
        norm = {"name": "rms", "eps": config.number(*self.eps), "scale": False}
        normed = config.flag("use_qk_norm", True)
        return {**super().read_attention(config), "qk_norm": norm if normed else None, "qk_norm_order": "after"}

    def read_feedforward(self, config: ForeignConfig) -> dict[str, Any]:
        expert = super().read_feedforward(config)
        router = {"name": "sigmoid", "k": config.integer("num_experts_per_tok", 1), "renormalize": False}
        return sparse(config.integer("num_local_experts", 16), router, expert, shared=expert, weights_on="input")

    def read_layers(self, config: ForeignConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        usual = [int(not each) for each in every(config.integer("no_rope_layer_interval", 4), n_layers)]
        turned = config.items("no_rope_layers", []) or usual
        types = config.items("layer_types", ["chunked_attention" if each else "full_attention" for each in turned])
        moe = every(config.integer("interleave_moe_layer_step", 1), n_layers)
        experts = config.items("moe_layers", [index for index, each in enumerate(moe) if each])
        plain = dense(super().read_feedforward(config), config.integer("intermediate_size_mlp", 16384))
        tuning = {"strength": config.number("attn_scale", 0.1), "interval": config.integer("floor_scale", 8192)}
        bare = {"name": "query-temperature", **tuning} if config.flag("attn_temperature_tuning", True) else "none"
        chunk = config.nullable("attention_chunk_size", 8192)
        layers: list[dict[str, Any]] = []
        for index, (rotary, kind) in enumerate(zip(turned, types, strict=True)):
            attention = ({} if rotary else {"qk_norm": None}) | ({"chunk": chunk} if kind == "chunked_attention" else {})
            layer = {"attention": attention, "position": {} if rotary else bare, "feedforward": plain}
            layers.append(
                {key: layer[key] for key in layer if layer[key] and not (key == "feedforward" and index in experts)}
            )
        return layers

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        plain = first_of(layers, "gated")
        return {
            **write_experts(layers, "num_local_experts", "intermediate_size"),
            **({} if plain is None else {"intermediate_size_mlp": plain.d_hidden}),
            "moe_layers": [i for i, layer in enumerate(layers) if layer.feedforward.name == "experts"],
        }

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        tuned = next((layer.position for layer in layers if layer.position.name == "query-temperature"), None)
        return {
            **super().config(model),
            "use_qk_norm": any(layer.attention.qk_norm is not None for layer in layers),
            "no_rope_layers": [int(layer.position.name == "rotary") for layer in layers],
            "layer_types": ["chunked_attention" if layer.attention.chunk else "full_attention" for layer in layers],
            "attention_chunk_size": next((layer.attention.chunk for layer in layers if layer.attention.chunk), None),
            "attn_temperature_tuning": tuned is not None,
            **({} if tuned is None else {"attn_scale": tuned.strength, "floor_scale": tuned.interval}),
        }

    def rules(self, model: Any) -> list[Rule]:
        block = "model.layers.*.feed_forward"
        stacked = [
            Rule("blocks.*.feedforward.experts.#.gate_up.weight", f"{block}.experts.gate_up_proj", TRANSPOSED),
            Rule("blocks.*.feedforward.experts.#.down.weight", f"{block}.experts.down_proj", TRANSPOSED),
        ]
        plain = [
            Rule(rule.ours, rule.theirs.replace(".mlp.", ".feed_forward."), rule.layout) for rule in super().rules(model)
        ]
        return [*stacked, *expert_rules(block, router="router"), *plain]
