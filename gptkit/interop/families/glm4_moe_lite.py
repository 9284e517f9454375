"""GLM 4.7 Flash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.deepseek_v3 import DeepseekV3Family
from gptkit.interop.families.parts.experts import read_sparse, write_sparse
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Glm4MoeLiteFamily"]


class Glm4MoeLiteFamily(DeepseekV3Family):
    """GLM 4.7 Flash: DeepSeek V3 with dense layers listed one by one."""

    name: Literal["glm4-moe-lite"] = "glm4-moe-lite"  # type: ignore[assignment]
    model_type: ClassVar[str] = "glm4_moe_lite"
    architecture: ClassVar[str] = "Glm4MoeLiteForCausalLM"
    harmless: ClassVar[frozenset[str]] = DeepseekV3Family.harmless | {"first_k_dense_replace", "partial_rotary_factor"}
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    groups: ClassVar[tuple[int, int]] = (1, 1)
    scale: ClassVar[float] = 1.8

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        plain = {"feedforward": self.read_dense(config)}
        n_dense = config.integer("first_k_dense_replace", 1)
        return [{} if each else plain for each in read_sparse(config, n_layers, n_dense)]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = super().write_feedforward(layers)
        del result["first_k_dense_replace"]
        return {**result, **write_sparse(layers)}
