"""ERNIE 4.5 with experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.ernie4_5 import Ernie45Family
from gptkit.interop.families.parts.experts import INERT, dense, expert_rules, first_of, sparse, write_experts
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.layouts import FLAT
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Ernie45MoeFamily"]


class Ernie45MoeFamily(Ernie45Family):
    """ERNIE 4.5 with experts chosen by a softmax and a bias that only selects, and shared experts."""

    name: Literal["ernie4.5-moe"] = "ernie4.5-moe"  # type: ignore[assignment]
    model_type: ClassVar[str] = "ernie4_5_moe"
    architecture: ClassVar[str] = "Ernie4_5_MoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = (
        Ernie45Family.harmless | INERT | keys("moe_capacity moe_gate moe_use_aux_free num_nextn_predict_layers")
    )
    ignored: ClassVar[tuple[str, ...]] = (*Ernie45Family.ignored, r"model\.mtp_.*")
    d_head: ClassVar[int | None] = None
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24, "moe_num_shared_experts": 2},
    )

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        plain, width = super().read_feedforward(config), config.integer("moe_intermediate_size", 1536)
        router = {"name": "softmax-top-k", "selection_bias": True, "renormalize": True}
        router["k"] = config.integer(config.alias("moe_k", "num_experts_per_tok"), 6)
        if config.number("moe_norm_min", 1e-12) > 1e-6:
            config.refuse("moe_norm_min", "gptkit has no lower bound of the weights' sum, which has no effect up to 1e-6")
        n_experts = config.integer(config.alias("moe_num_experts", "num_experts"), 64)
        n_shared = config.integer("moe_num_shared_experts", 2)
        shared = dense(plain, width * n_shared) if n_shared else None
        return sparse(n_experts, router, {**dense(plain, width), "bias": False}, shared=shared)

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"bias": config.flag("use_bias", False)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        first, last = config.integer("moe_layer_start_index", 1), config.integer("moe_layer_end_index", -1)
        interval = max(1, config.integer("moe_layer_interval", 1))
        last = n_layers - 1 if last == -1 else last
        plain = {"feedforward": super().read_feedforward(config)}
        return [{} if first <= i <= last and (i + 1) % interval == 0 else plain for i in range(n_layers)]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result, plain = first_of(layers, "experts"), first_of(layers, "gated")
        sparse_layers = [i for i, layer in enumerate(layers) if layer.feedforward.name == "experts"]
        common = write_experts(layers, "moe_num_experts", "moe_intermediate_size")
        return {
            "moe_k": common.pop("num_experts_per_tok"),
            **common,
            "intermediate_size": result.expert.d_hidden if plain is None else plain.d_hidden,
            "moe_num_shared_experts": 0 if result.shared is None else result.shared.d_hidden // result.expert.d_hidden,
            "moe_layer_start_index": sparse_layers[0],
            "moe_layer_end_index": sparse_layers[-1],
            "moe_layer_interval": sparse_layers[1] - sparse_layers[0] if len(sparse_layers) > 1 else sparse_layers[0] + 1,
        }

    def rules(self, model: Any) -> list[Rule]:
        block = "model.layers.*.mlp"
        bias = Rule("blocks.*.feedforward.router.selection_bias", f"{block}.moe_statics.e_score_correction_bias", FLAT)
        return [bias, *expert_rules(block, shared="shared_experts"), *super().rules(model)]
