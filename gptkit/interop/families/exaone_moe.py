"""K-EXAONE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.exaone4 import Exaone4Family
from gptkit.interop.families.parts.experts import (
    INERT,
    dense,
    expert_rules,
    first_of,
    read_groups,
    read_sparse,
    sparse,
    write_experts,
    write_groups,
    write_sparse,
)
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["ExaoneMoeFamily"]


class ExaoneMoeFamily(Exaone4Family):
    """K-EXAONE: EXAONE 4's attention between pre-norms, with DeepSeek V3's experts."""

    name: Literal["exaone-moe"] = "exaone-moe"  # type: ignore[assignment]
    model_type: ClassVar[str] = "exaone_moe"
    architecture: ClassVar[str] = "ExaoneMoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = Exaone4Family.harmless | INERT | {"num_nextn_predict_layers"}
    ignored: ClassVar[tuple[str, ...]] = (*Exaone4Family.ignored, r"(model\.)?mtp\..*")
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"num_shared_experts": 2},)

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "pre-norm"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        expert = dense(super().read_feedforward(config), config.integer("moe_intermediate_size", 1024))
        groups, k = read_groups(config, scale=2.5), config.integer("num_experts_per_tok", 8)
        router = {"name": "sigmoid", "selection_bias": True, "k": k, **groups}
        shared = dense(expert, expert["d_hidden"] * config.integer("num_shared_experts", 1))
        return sparse(config.integer("num_experts", 64), router, expert, shared=shared)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        plain = {"feedforward": super().read_feedforward(config)}
        layers = super().read_layers(config, n_layers) or [{}] * n_layers
        experts = read_sparse(config, n_layers, config.integer("first_k_dense_replace", 1))
        return [layer if each else {**layer, **plain} for layer, each in zip(layers, experts, strict=True)]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result, plain = first_of(layers, "experts"), first_of(layers, "gated")
        return {
            **write_experts(layers, "num_experts", "moe_intermediate_size"),
            "intermediate_size": (plain or result.expert).d_hidden,
            "num_shared_experts": result.shared.d_hidden // result.expert.d_hidden,
            **write_sparse(layers),
            **write_groups(result.router),
        }

    def rules(self, model: Any) -> list[Rule]:
        block = "model.layers.*.mlp"
        bias = Rule("blocks.*.feedforward.router.selection_bias", f"{block}.e_score_correction_bias")
        return [bias, *expert_rules(block, shared="shared_experts"), *Decoder.rules(self, model)]
