"""Aria, the language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.activations import write_activation
from gptkit.interop.families.parts.experts import INERT, dense, expert_rules, first_of, sparse
from gptkit.interop.layouts import TRANSPOSED, Stack
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["AriaTextFamily"]


class AriaTextFamily(Decoder):
    """Aria (text): Llama with experts in every layer, weighed by a softmax among the chosen, and shared ones."""

    name: Literal["aria-text"] = "aria-text"
    model_type: ClassVar[str] = "aria_text"
    model_types: ClassVar[tuple[str, ...]] = ("aria",)
    architecture: ClassVar[str] = "AriaTextForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | {"projector_patch_to_query_dict"}
    prefixes: ClassVar[Mapping[str, str]] = {"model.language_model.": "model.", "language_model.": ""}
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"(model\.)?(vision_tower|multi_modal_projector)\..*")
    feedforward_biases: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"moe_num_experts": 4, "moe_topk": 2},)

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        shared = super().read_feedforward(config)
        # The activation and the biases are those of the shared experts.
        expert = {**shared, "activation": "silu", "bias": False}
        router = {"name": "top-k-softmax", "k": config.integer("moe_topk", 2)}
        n_shared = config.integer("moe_num_shared_experts", 2)
        return sparse(
            config.integer("moe_num_experts", 8), router, expert, shared=dense(shared, n_shared * shared["d_hidden"])
        )

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        experts = first_of(layers, "experts")
        return {
            "intermediate_size": experts.expert.d_hidden,
            "moe_num_experts": experts.n_experts,
            "moe_topk": experts.router.k,
            "moe_num_shared_experts": experts.shared.d_hidden // experts.expert.d_hidden,
            "hidden_act": write_activation(experts.shared.activation),
            "mlp_bias": experts.shared.bias,
        }

    def rules(self, model: Any) -> list[Rule]:
        native, block = "blocks.*.feedforward.experts", "model.layers.*.mlp"
        stacked = [
            Rule(f"{native}.gate_up", f"{block}.experts.fc1", Stack(TRANSPOSED)),
            Rule(f"{native}.down", f"{block}.experts.fc2", Stack(TRANSPOSED)),
        ]
        return [*stacked, *expert_rules(block, router="router", shared="shared_experts"), *super().rules(model)]
