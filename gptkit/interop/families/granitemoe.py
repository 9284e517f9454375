"""Granite with experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.granite import GraniteFamily
from gptkit.interop.families.parts.experts import INERT, sparse, write_experts
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GraniteMoeFamily"]


class GraniteMoeFamily(GraniteFamily):
    """Granite 3 with experts, weighed by a softmax among the chosen."""

    name: Literal["granitemoe"] = "granitemoe"  # type: ignore[assignment]
    model_type: ClassVar[str] = "granitemoe"
    architecture: ClassVar[str] = "GraniteMoeForCausalLM"
    feedforward_biases: ClassVar[bool] = False
    harmless: ClassVar[frozenset[str]] = GraniteFamily.harmless | INERT

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        router = {"name": "top-k-softmax", "k": config.integer("num_experts_per_tok", 2)}
        return sparse(config.integer("num_local_experts", 8), router, super().read_feedforward(config))

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return write_experts(layers, "num_local_experts", "intermediate_size")

    def rules(self, model: Any) -> list[Rule]:
        block = "model.layers.*.block_sparse_moe"
        experts = [
            Rule("blocks.*.feedforward.router.scores", f"{block}.router.layer"),
            Rule("blocks.*.feedforward.experts.gate_up", f"{block}.input_linear"),
            Rule("blocks.*.feedforward.experts.down", f"{block}.output_linear"),
        ]
        return [*experts, *super().rules(model)]
