"""Hunyuan with experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.hunyuan_v1_dense import HunyuanFamily
from gptkit.interop.families.parts.experts import INERT, expert_rules, sparse, write_experts
from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["HunyuanMoeFamily"]


class HunyuanMoeFamily(HunyuanFamily):
    """Hunyuan-A13B: Hunyuan with experts and a shared one of the same width."""

    name: Literal["hunyuan-moe"] = "hunyuan-moe"  # type: ignore[assignment]
    model_type: ClassVar[str] = "hunyuan_v1_moe"
    architecture: ClassVar[str] = "HunYuanMoEV1ForCausalLM"
    harmless: ClassVar[frozenset[str]] = (
        HunyuanFamily.harmless
        | INERT
        | keys("capacity_factor moe_drop_tokens moe_layer_num_skipped moe_random_routing_dropped_token")
        | keys("group_limited_greedy")
    )
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "n_group": (False, 1),
        "norm_topk_prob": (True,),
        "routed_scaling_factor": (False, 1.0, 1),
        "topk_group": (False, 1),
    }
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"num_experts": 4, "moe_topk": 2, "moe_intermediate_size": 96},)

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        expert = super().read_feedforward(config)
        usual = {"moe_intermediate_size": expert["d_hidden"], "num_shared_expert": 1}
        for key, value in usual.items():
            config.only(key, value, [value] * config.layers("num_hidden_layers"), why="transformers has nothing else")
        config.only("use_mixed_mlp_moe", True, why="transformers has a shared expert in each layer")
        n_experts = self._of_all(config, config.alias("num_experts", "num_local_experts"))
        k = self._of_all(config, config.alias("moe_topk", "num_experts_per_tok"))
        return sparse(n_experts, {"name": "softmax-top-k", "k": k, "renormalize": True}, expert, shared=expert)

    def _of_all(self, config: ExternalConfig, key: str) -> int:
        """Return the value of all layers, given once or for each layer."""
        values = config.value(key)
        if not isinstance(values, list):
            return config.integer(key, 1)
        if len(values) != config.layers("num_hidden_layers") or any(value != values[0] for value in values):
            config.refuse(key, "it should be the same for all layers")
        return int(values[0])

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = write_experts(layers, "num_experts", "intermediate_size")
        return {"moe_topk": result.pop("num_experts_per_tok"), **result}

    def rules(self, model: Any) -> list[Rule]:
        return [*expert_rules("model.layers.*.mlp", router="gate.wg", shared="shared_mlp"), *super().rules(model)]
