"""MiniMax M3, the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts import experts as moe
from gptkit.interop.families.parts import minimax_m3
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["MiniMaxM3Family"]

DENSE, SHARED = "dense_intermediate_size", "shared_intermediate_size"


class MiniMaxM3Family(Decoder):
    """MiniMax M3 (text): an indexer chooses blocks of keys in most layers, clamped experts, and a shared one."""

    name: Literal["minimax-m3"] = "minimax-m3"
    model_type: ClassVar[str] = "minimax_m3_vl_text"
    architecture: ClassVar[str] = "MiniMaxM3VLForCausalLM"
    # transformers rotates the part of each head that `partial_rotary_factor` says, not `rotary_dim`.
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | moe.INERT | {"hidden_act", "rotary_dim"}
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"(.*\.)?mtp\..*")
    base: ClassVar[float] = 5000000.0
    partial: ClassVar[bool] = True
    d_head: ClassVar[int | None] = 128
    attention_biases: ClassVar[bool] = False
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (minimax_m3.TINY,)

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "offset": 1, "cast": "after"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qk_norm": self.read_norm(config)}

    def read_expert(self, config: ExternalConfig, key: str, width: int) -> dict[str, Any]:
        """Return a feed-forward of the width that a key has."""
        activation = {"name": "quick-gelu", "alpha": config.number("swiglu_alpha", 1.702)}
        fields = {"activation": activation, "clamp": config.number("swiglu_limit", 7.0), "up_offset": 1.0}
        return {"name": "gated", "d_hidden": config.integer(key, width), **fields}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        k, scale = config.integer("num_experts_per_tok", 4), config.number("routed_scaling_factor", 2.0)
        router = {"name": "sigmoid", "selection_bias": True, "k": k, "scale": scale}
        expert, shared = self.read_expert(config, self.width, 3072), self.read_expert(config, SHARED, 3072)
        return moe.sparse(
            config.integer(config.alias("num_local_experts", "num_experts"), 128), router, expert, shared=shared
        )

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        listed = config.items("moe_layer_freq", [1] * n_layers)
        attentions = minimax_m3.read_layers(config, n_layers, self.read_attention(config))
        if "mlp_layer_types" in config:
            listed = moe.read_sparse(config, n_layers)
        plain = {"feedforward": self.read_expert(config, DENSE, 12288)}
        if len(listed) != n_layers:
            config.refuse("moe_layer_freq", f"it should have a number for each of {n_layers} layers")
        return [{**({} if each else plain), **own} for each, own in zip(listed, attentions, strict=True)]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {**super().write_attention(layers), **minimax_m3.write_layers(layers)}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        experts, plain = moe.first_of(layers, "experts"), moe.first_of(layers, "gated")
        expert = experts.expert
        result = {**moe.write_experts(layers, "num_local_experts", self.width), **moe.write_sparse(layers)}
        result |= {SHARED: experts.shared.d_hidden, DENSE: (plain or expert).d_hidden}
        limits = {"swiglu_alpha": expert.activation.alpha, "swiglu_limit": expert.clamp}
        return {**result, **limits, "hidden_act": "silu", "routed_scaling_factor": experts.router.scale}

    def rules(self, model: Any) -> list[Rule]:
        return [*minimax_m3.rules(), *moe.expert_rules("model.layers.*.mlp"), *super().rules(model)]
