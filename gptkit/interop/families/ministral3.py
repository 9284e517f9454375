"""Ministral 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.mistral import MistralFamily
from gptkit.interop.families.parts.rope import read_rotary
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Ministral3Family"]

SCALING: Mapping[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
"""The scaling of a configuration without keys for positions, as in transformers."""


class Ministral3Family(MistralFamily):
    """Ministral 3: Mistral with YaRN, and queries that grow with the logarithm of their position."""

    name: Literal["ministral3"] = "ministral3"  # type: ignore[assignment]
    model_type: ClassVar[str] = "ministral3"
    architecture: ClassVar[str] = "Ministral3ForCausalLM"
    rank: ClassVar[int] = 11
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    d_head: ClassVar[int | None] = 128

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        key = "rope_scaling" if config.value("rope_scaling") else "rope_parameters"
        section = config.section(key) if config.value(key) else ExternalConfig(SCALING)
        section.value("max_position_embeddings")  # equal to that of the model, and not read by transformers
        tempered = {
            "temperature": section.number("llama_4_scaling_beta"),
            "temperature_interval": section.integer("original_max_position_embeddings"),
        }
        return {**read_rotary(section, config, config.number("rope_theta", self.base)), **tempered}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        window = config.nullable("sliding_window", None) if "sliding_window" in config else None
        return {**super().read_attention(config), "window": window}

    def config(self, model: Any) -> dict[str, Any]:
        result, position = super().config(model), model.layer_specs()[0].position
        key = "rope_scaling" if result.get("rope_scaling") else "rope_parameters"
        tempered = {
            "llama_4_scaling_beta": position.temperature,
            "original_max_position_embeddings": position.temperature_interval,
        }
        return {**result, key: {**result[key], **tempered}}
