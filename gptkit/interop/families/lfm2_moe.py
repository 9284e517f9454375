"""LFM2 with experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.lfm2 import Lfm2Family
from gptkit.interop.families.parts.experts import INERT, dense, first_dense, first_of, mixtral_rules, sparse, write_experts
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Lfm2MoeFamily"]


class Lfm2MoeFamily(Lfm2Family):
    """LFM2 with experts after the first layers, judged by a sigmoid."""

    name: Literal["lfm2-moe"] = "lfm2-moe"  # type: ignore[assignment]
    model_type: ClassVar[str] = "lfm2_moe"
    architecture: ClassVar[str] = "Lfm2MoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = Lfm2Family.harmless | INERT
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({**Lfm2Family.tiny[0], "num_dense_layers": 1},)

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        router = {
            "name": "sigmoid",
            "k": config.integer("num_experts_per_tok", 4),
            "selection_bias": config.flag("use_expert_bias", True),
            "renormalize": config.flag("norm_topk_prob", True),
            "scale": config.number("routed_scaling_factor", 1.0),
        }
        expert = {"name": "gated", "d_hidden": config.integer("moe_intermediate_size", 1792)}
        return sparse(config.integer("num_experts", 32), router, expert)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        plain = dense({"name": "gated"}, config.integer("intermediate_size", 7168))
        layers = first_dense(config.integer("num_dense_layers", 2), n_layers, plain)
        return [{**one, **other} for one, other in zip(super().read_layers(config, n_layers), layers, strict=True)]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result, plain = first_of(layers, "experts"), first_of(layers, "gated")
        written = write_experts(layers, "num_experts", "moe_intermediate_size")
        del written["hidden_act"]
        return {
            **written,
            "intermediate_size": (plain or result.expert).d_hidden,
            "num_dense_layers": sum(layer.feedforward.name != "experts" for layer in layers),
            "use_expert_bias": result.router.selection_bias,
            "norm_topk_prob": result.router.renormalize,
            "routed_scaling_factor": result.router.scale,
        }

    def rules(self, model: Any) -> list[Rule]:
        return [*mixtral_rules("model.layers.*.feed_forward", bias="expert_bias"), *super().rules(model)]
