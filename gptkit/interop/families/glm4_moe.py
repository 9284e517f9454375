"""GLM 4.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import (
    INERT,
    dense,
    expert_rules,
    first_dense,
    first_of,
    read_groups,
    sparse,
    write_experts,
    write_groups,
)
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Glm4MoeFamily"]


class Glm4MoeFamily(Decoder):
    """GLM 4.5: DeepSeek V3's experts behind grouped queries, with rotary on half of each head."""

    name: Literal["glm4-moe"] = "glm4-moe"
    model_type: ClassVar[str] = "glm4_moe"
    architecture: ClassVar[str] = "Glm4MoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | {"num_nextn_predict_layers"}
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    fraction: ClassVar[float] = 0.5
    output_biases: ClassVar[bool] = False
    first: ClassVar[int] = 1
    """`first_k_dense_replace` where the configuration has none."""
    renormalizes: ClassVar[bool] = True
    """`norm_topk_prob` where the configuration has none."""
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"moe_intermediate_size": 24, "n_routed_experts": 4, "num_experts_per_tok": 2},
    )

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        norm = self.read_norm(config) if config.flag("use_qk_norm", False) else None
        return {**super().read_attention(config), "qk_norm": norm}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        expert = {**super().read_feedforward(config), "d_hidden": config.integer("moe_intermediate_size")}
        groups, k = read_groups(config, renormalizes=self.renormalizes), config.integer("num_experts_per_tok", 8)
        router = {"name": "sigmoid", "selection_bias": True, "k": k, **groups}
        shared = dense(expert, expert["d_hidden"] * config.integer("n_shared_experts", 1))
        return sparse(config.integer("n_routed_experts", 128), router, expert, shared=shared)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        return first_dense(config.integer("first_k_dense_replace", self.first), n_layers, super().read_feedforward(config))

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result, plain = first_of(layers, "experts"), first_of(layers, "gated")
        return {
            **write_experts(layers, "n_routed_experts", "moe_intermediate_size"),
            "intermediate_size": result.expert.d_hidden if plain is None else plain.d_hidden,
            "n_shared_experts": result.shared.d_hidden // result.expert.d_hidden,
            "first_k_dense_replace": sum(layer.feedforward.name != "experts" for layer in layers),
            **write_groups(result.router),
        }

    def config(self, model: Any) -> dict[str, Any]:
        normed = model.layer_specs()[0].attention.qk_norm is not None
        return {**super().config(model), "use_qk_norm": normed}

    def skipped(self, model: Any) -> Sequence[str]:
        # The layer for multi-token prediction follows the last one.
        return [*self.ignored, rf"model\.layers\.{model.n_layers}\..*"]

    def rules(self, model: Any) -> list[Rule]:
        return [*expert_rules("model.layers.*.mlp", shared="shared_experts"), *super().rules(model)]
