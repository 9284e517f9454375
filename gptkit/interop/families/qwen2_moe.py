"""Qwen 1.5 and 2 with experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import first_of
from gptkit.interop.families.qwen3_moe import Qwen3MoeFamily
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Qwen2MoeFamily"]


class Qwen2MoeFamily(Qwen3MoeFamily):
    """Qwen 1.5 and 2 with experts and a gated shared one: biases on queries, keys and values."""

    name: Literal["qwen2-moe"] = "qwen2-moe"  # type: ignore[assignment]
    model_type: ClassVar[str] = "qwen2_moe"
    architecture: ClassVar[str] = "Qwen2MoeForCausalLM"
    attention_biases: ClassVar[bool] = False
    experts: ClassVar[tuple[int, int, int]] = (60, 4, 1408)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**Decoder.read_attention(self, config), "qkv_bias": config.flag("qkv_bias", True)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        types = config.value("layer_types")
        if isinstance(types, list) and "sliding_attention" in types:
            config.refuse("layer_types", "it has sliding windows, which use_sliding_window switches off")
        return super().read_layers(config, n_layers)

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        result = super().read_feedforward(config)
        shared = {**result["expert"], "d_hidden": config.integer("shared_expert_intermediate_size", 5632)}
        return {**result, "shared": shared, "shared_gate": True}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {**super().write_attention(layers), "qkv_bias": layers[0].attention.qkv_bias}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        shared = first_of(layers, "experts").shared
        return {**super().write_feedforward(layers), "shared_expert_intermediate_size": shared.d_hidden}
