"""Qwen 3 with experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.experts import INERT, dense, expert_rules, first_of, sparse, write_experts
from gptkit.interop.families.qwen3 import Qwen3Family
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Qwen3MoeFamily"]


class Qwen3MoeFamily(Qwen3Family):
    """Qwen 3 with many experts in every layer, or in some."""

    name: Literal["qwen3-moe"] = "qwen3-moe"  # type: ignore[assignment]
    model_type: ClassVar[str] = "qwen3_moe"
    architecture: ClassVar[str] = "Qwen3MoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = Qwen3Family.harmless | INERT
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "qkv_bias": (False,),
        "shared_expert_intermediate_size": (0,),
        "use_qk_norm": (True,),
    }
    d_head: ClassVar[int | None] = None
    experts: ClassVar[tuple[int, int, int]] = (128, 8, 768)
    """Defaults: the number of experts, the number chosen per token, and their width."""

    renormalizes: ClassVar[bool] = False
    """`norm_topk_prob` where the configuration has none."""

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        number, chosen, width = self.experts
        n_experts = config.integer(config.alias("num_experts", "num_local_experts"), number)
        renormalize = config.flag("norm_topk_prob", self.renormalizes)
        router = {"name": "softmax-top-k", "k": config.integer("num_experts_per_tok", chosen), "renormalize": renormalize}
        expert = {**super().read_feedforward(config), "d_hidden": config.integer("moe_intermediate_size", width)}
        return sparse(n_experts, router, expert)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        config.only("use_sliding_window", False, why="no released model of the family has windows")
        for key in ("sliding_window", "max_window_layers", "layer_types"):
            config.value(key)
        step, plain = config.integer("decoder_sparse_step", 1), config.items("mlp_only_layers", [])
        feedforward = dense(super().read_feedforward(config), config.integer("intermediate_size", 6144))
        return [
            {} if index not in plain and step > 0 and (index + 1) % step == 0 else {"feedforward": feedforward}
            for index in range(n_layers)
        ]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        router = first_of(layers, "experts").router
        plain = first_of(layers, "gated")
        return {
            **write_experts(layers, "num_experts", "moe_intermediate_size"),
            "norm_topk_prob": router.renormalize,
            "mlp_only_layers": [i for i, layer in enumerate(layers) if layer.feedforward.name != "experts"],
            "intermediate_size": (plain or first_of(layers, "experts").expert).d_hidden,
        }

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = super().write_attention(layers)
        del result["layer_types"]
        return result

    def rules(self, model: Any) -> list[Rule]:
        return [*expert_rules("model.layers.*.mlp"), *super().rules(model)]
