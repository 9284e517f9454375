"""Hunyuan 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import (
    INERT,
    dense,
    expert_rules,
    first_of,
    read_sparse,
    sparse,
    write_experts,
    write_sparse,
)
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["HunyuanV3Family"]


class HunyuanV3Family(Decoder):
    """Hunyuan 3: Qwen 3's attention, many experts selected with a bias, and a shared one."""

    name: Literal["hunyuan3"] = "hunyuan3"
    model_type: ClassVar[str] = "hy_v3"
    architecture: ClassVar[str] = "HYV3ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | {"enable_moe_fp32_combine", "num_nextn_predict_layers"}
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    base: ClassVar[float] = 11158840.0
    d_head: ClassVar[int | None] = 128

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qk_norm": self.read_norm(config)}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        expert = dense(super().read_feedforward(config), config.integer("moe_intermediate_size", 1536))
        k, scale = config.integer("num_experts_per_tok", 8), config.number("router_scaling_factor", 2.826)
        router = {"name": "sigmoid", "selection_bias": True, "k": k, "scale": scale}
        shared = dense(expert, expert["d_hidden"] * config.integer("num_shared_experts", 1))
        return sparse(config.integer("num_experts", 192), router, expert, shared=shared)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        plain = {"feedforward": super().read_feedforward(config)}
        return [{} if each else plain for each in read_sparse(config, n_layers, 1)]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result, plain = first_of(layers, "experts"), first_of(layers, "gated")
        return {
            **write_experts(layers, "num_experts", "moe_intermediate_size"),
            "intermediate_size": (plain or result.expert).d_hidden,
            "num_shared_experts": result.shared.d_hidden // result.expert.d_hidden,
            **write_sparse(layers),
            "router_scaling_factor": result.router.scale,
        }

    def skipped(self, model: Any) -> Sequence[str]:
        # The layers for multi-token prediction follow the last one.
        return [*self.ignored, rf"model\.layers\.{model.n_layers}\..*"]

    def rules(self, model: Any) -> list[Rule]:
        block = "model.layers.*.mlp"
        bias = Rule("blocks.*.feedforward.router.selection_bias", f"{block}.expert_bias")
        return [bias, *expert_rules(block, router="router.gate", shared="shared_mlp"), *super().rules(model)]
