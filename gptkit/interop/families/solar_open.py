"""Solar Open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.glm4_moe import Glm4MoeFamily
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["SolarOpenFamily"]


class SolarOpenFamily(Glm4MoeFamily):
    """Solar Open: GLM 4.5 with experts in every layer, and rotary on whole heads."""

    name: Literal["solar-open"] = "solar-open"  # type: ignore[assignment]
    model_type: ClassVar[str] = "solar_open"
    architecture: ClassVar[str] = "SolarOpenForCausalLM"
    base: ClassVar[float] = 1000000.0
    fraction: ClassVar[float] = 1.0
    partial: ClassVar[bool] = True
    d_head: ClassVar[int | None] = 128
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"moe_intermediate_size": 24, "n_routed_experts": 4, "num_experts_per_tok": 2},
    )

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("use_qk_norm", False, why="transformers has none in this family")
        return Decoder.read_attention(self, config)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        config.only("first_k_dense_replace", 0, why="transformers has experts in every layer")
        config.value("intermediate_size")
        return []

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {**super().write_feedforward(layers), "first_k_dense_replace": 0}

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), "use_qk_norm": False}
