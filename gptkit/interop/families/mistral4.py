"""Mistral Small 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.deepseek_v3 import DeepseekV3Family
from gptkit.interop.families.mistral import MistralFamily
from gptkit.interop.families.parts.experts import read_groups
from gptkit.interop.families.parts.latent import LatentDecoder
from gptkit.interop.families.parts.rope import read_rotary
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Mistral4Family"]

SCALING = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 128.0, "original_max_position_embeddings": 8192}
SHARPENED = {**SCALING, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
"""The scaling of a configuration without keys for positions, as in transformers."""


class Mistral4Family(DeepseekV3Family):
    """Mistral Small 4: DeepSeek's latent attention, with queries that grow with the logarithm of their position."""

    name: Literal["mistral4"] = "mistral4"  # type: ignore[assignment]
    model_type: ClassVar[str] = "mistral4"
    architecture: ClassVar[str] = "Mistral4ForCausalLM"
    prefixes: ClassVar[Mapping[str, str]] = MistralFamily.prefixes
    ignored: ClassVar[tuple[str, ...]] = MistralFamily.ignored

    def reference(self) -> tuple[Any, Any] | None:
        import transformers  # which lists only the multimodal model of the type

        return transformers.Mistral4Config, transformers.Mistral4ForCausalLM

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        return LatentDecoder.model(self, config)

    def read_rope(self, config: ExternalConfig) -> ExternalConfig:
        key = "rope_scaling" if config.value("rope_scaling") else "rope_parameters"
        return config.section(key) if config.value(key) else ExternalConfig(SHARPENED)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        section, rotary = self.read_rope(config), config.integer("qk_rope_head_dim", 64)
        section.value("max_position_embeddings")  # not read by transformers
        position = read_rotary(section, config, config.number("rope_theta", self.base))
        share = rotary / max(1, config.integer("qk_nope_head_dim", 64) + rotary)
        if position.pop("fraction", share) != share:
            config.refuse("qk_rope_head_dim", "partial_rotary_factor has another share of the head's features")
        return {
            **position,
            "layout": "interleaved" if config.flag("rope_interleave", True) else "half",
            "temperature": section.number("llama_4_scaling_beta"),
            "temperature_interval": section.integer("original_max_position_embeddings"),
        }

    def read_router(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "softmax-top-k", "group_score": "top-2-sum", **read_groups(config)}

    def config(self, model: Any) -> dict[str, Any]:
        layer, result = model.layer_specs()[0], super().config(model)
        position, attention = layer.position, layer.attention
        key = "rope_scaling" if result.get("rope_scaling") else "rope_parameters"
        tempered = {
            "llama_4_scaling_beta": position.temperature,
            "original_max_position_embeddings": position.temperature_interval,
            "partial_rotary_factor": attention.d_rotary / (attention.d_nope + attention.d_rotary),
        }
        return {**result, key: {**result[key], **tempered}}

    def rules(self, model: Any) -> list[Rule]:
        native, external = "blocks.*.feedforward.experts.{}.weight", "model.layers.*.mlp.experts.{}_proj"
        return [*(Rule(native.format(n), external.format(n)) for n in ("gate_up", "down")), *super().rules(model)]
