"""The base of DeepSeek's families: latent attention, dense first layers, then experts and a shared one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import INERT, dense, expert_rules, first_dense, first_of, sparse, write_experts
from gptkit.interop.families.parts.latent.attention import LatentAttention
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["LatentDecoder"]

_HEADS = {"q_lora_rank": 20, "kv_lora_rank": 12, "qk_rope_head_dim": 8, "qk_nope_head_dim": 10, "v_head_dim": 6}
_EXPERTS = {"moe_intermediate_size": 24, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 3}
_CHOICE = {"first_k_dense_replace": 1, "n_group": 4, "topk_group": 2}


class LatentDecoder(LatentAttention):
    """DeepSeek's architecture; each family defines the router."""

    harmless: ClassVar[frozenset[str]] = (
        Decoder.harmless | INERT | {"head_dim", "num_key_value_heads", "num_nextn_predict_layers", "qk_head_dim"}
    )
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"num_key_value_heads": 4, **_EXPERTS, **_CHOICE, **_HEADS},)

    @abstractmethod
    def read_router(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the router, as in a spec file."""

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("moe_layer_freq", 1, why="the family has experts in every layer after the first dense ones")
        expert = {**super().read_feedforward(config), "d_hidden": config.integer("moe_intermediate_size")}
        router = {**self.read_router(config), "k": config.integer("num_experts_per_tok")}
        shared = dense(expert, expert["d_hidden"] * self.size(config, "n_shared_experts", 1))
        return sparse(config.integer("n_routed_experts"), router, expert, shared=shared)

    def read_dense(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the feed-forward of layers without experts."""
        return super().read_feedforward(config)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        return first_dense(config.integer("first_k_dense_replace", 0), n_layers, self.read_dense(config))

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result, plain = first_of(layers, "experts"), first_of(layers, "gated")
        n_dense = sum(layer.feedforward.name != "experts" for layer in layers)
        return {
            **write_experts(layers, "n_routed_experts", "moe_intermediate_size"),
            "intermediate_size": result.expert.d_hidden if plain is None else plain.d_hidden,
            "n_shared_experts": result.shared.d_hidden // result.expert.d_hidden,
            "first_k_dense_replace": n_dense,
            "routed_scaling_factor": result.router.scale,
        }

    def skipped(self, model: Any) -> Sequence[str]:
        # The layers for multi-token prediction follow the last one.
        return [*self.ignored, rf"model\.layers\.{model.n_layers}\..*"]

    def rules(self, model: Any) -> list[Rule]:
        return [*expert_rules("model.layers.*.mlp", shared="shared_experts"), *super().rules(model)]
