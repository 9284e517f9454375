"""Qwen 3.5 with experts, the language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.experts import INERT, expert_rules, first_of, sparse, write_experts
from gptkit.interop.families.qwen3_5 import Qwen35Family
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Qwen35MoeFamily"]


class Qwen35MoeFamily(Qwen35Family):
    """Qwen 3.5 (text) with experts in every layer, and a gated shared one."""

    name: Literal["qwen3.5-moe"] = "qwen3.5-moe"  # type: ignore[assignment]
    model_type: ClassVar[str] = "qwen3_5_moe_text"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_5_moe",)
    architecture: ClassVar[str] = "Qwen3_5MoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = Qwen35Family.harmless | INERT | {"intermediate_size"}
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {**Qwen35Family.redundant, "norm_topk_prob": (True,)}
    width: ClassVar[str] = "moe_intermediate_size"
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2},
    )

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        width = config.integer("moe_intermediate_size", 512)
        expert = {**super().read_feedforward(config), "d_hidden": width}
        router = {"name": "softmax-top-k", "k": config.integer("num_experts_per_tok", 8), "renormalize": True}
        shared = {**expert, "d_hidden": config.integer("shared_expert_intermediate_size", 512)}
        return sparse(config.integer("num_experts", 256), router, expert, shared=shared, shared_gate=True)

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = {"shared_expert_intermediate_size": first_of(layers, "experts").shared.d_hidden}
        return {**write_experts(layers, "num_experts", "moe_intermediate_size"), **result}

    def rules(self, model: Any) -> list[Rule]:
        return [*expert_rules("model.layers.*.mlp"), *super().rules(model)]
