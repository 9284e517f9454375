"""Mixtral."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.mistral import MistralFamily
from gptkit.interop.families.parts.experts import INERT, mixtral_rules, sparse, write_experts
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["MixtralFamily"]


class MixtralFamily(MistralFamily):
    """Mixtral: Mistral with experts, two of which see each token."""

    name: Literal["mixtral"] = "mixtral"  # type: ignore[assignment]
    model_type: ClassVar[str] = "mixtral"
    architecture: ClassVar[str] = "MixtralForCausalLM"
    harmless: ClassVar[frozenset[str]] = MistralFamily.harmless | INERT
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    base: ClassVar[float] = 1e6

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "window": config.nullable("sliding_window")}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        router = {"name": "softmax-top-k", "k": config.integer("num_experts_per_tok", 2), "renormalize": True}
        return sparse(config.integer("num_local_experts", 8), router, super().read_feedforward(config))

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return write_experts(layers, "num_local_experts", "intermediate_size")

    def rules(self, model: Any) -> list[Rule]:
        return [*mixtral_rules("model.layers.*.block_sparse_moe"), *super().rules(model)]
