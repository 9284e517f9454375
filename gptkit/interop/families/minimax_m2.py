"""MiniMax M2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import INERT, mixtral_rules, sparse, write_experts
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.rope import read_rope
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["MiniMaxM2Family"]


class MiniMaxM2Family(Decoder):
    """MiniMax M2: many small experts, a norm over all queries and all keys of a token, rotary on a part of each head."""

    name: Literal["minimax-m2"] = "minimax-m2"
    model_type: ClassVar[str] = "minimax_m2"
    architecture: ClassVar[str] = "MiniMaxM2ForCausalLM"
    harmless: ClassVar[frozenset[str]] = (
        Decoder.harmless
        | INERT
        | keys("mlp_intermediate_size mtp_transformer_layers num_mtp_modules shared_moe_mode use_mtp")
    )
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        f"layernorm_{part}_{factor}": (1.0, 1)
        for part in ("full_attention", "linear_attention", "mlp")
        for factor in ("alpha", "beta")
    }
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"model\.mtp\..*")
    base: ClassVar[float] = 5000000.0
    d_head: ClassVar[int | None] = 128
    attention_biases: ClassVar[bool] = False
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"rotary_dim": 8},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        usual = {"scoring_func": "sigmoid", "use_qk_norm": True, "qk_norm_type": "per_layer", "use_routing_bias": True}
        for key, value in {**usual, "shared_intermediate_size": 0}.items():
            config.only(key, value, why="transformers has nothing else in this family")
        n_layers = config.layers("num_hidden_layers")
        config.only("attn_type_list", [1] * n_layers, why="transformers has full attention in all layers")
        return super().model(config)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        d_head = self.read_attention(config)["d_head"]
        rotated = config.integer("rotary_dim", d_head)
        return read_rope(config, base=self.base, fraction=rotated / max(1, d_head))

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qk_norm": self.read_norm(config), "qk_norm_width": "full"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        router = {"name": "sigmoid", "k": config.integer("num_experts_per_tok", 8), "selection_bias": True}
        n_experts = config.integer(config.alias("num_local_experts", "num_experts"), 256)
        return sparse(n_experts, router, super().read_feedforward(config))

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return write_experts(layers, "num_local_experts", "intermediate_size")

    def config(self, model: Any) -> dict[str, Any]:
        layer = model.layer_specs()[0]
        return {**super().config(model), "rotary_dim": layer.position.d_rotary(layer.attention.d_head)}

    def rules(self, model: Any) -> list[Rule]:
        return [*mixtral_rules("model.layers.*.block_sparse_moe"), *super().rules(model)]
