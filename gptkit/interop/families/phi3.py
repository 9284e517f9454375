"""Phi 3 and 4."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Phi3Family"]


class Phi3Family(Decoder):
    """Phi 3, 3.5 and 4: Llama's shape with fused projections, a sliding window, and longrope for long texts.

    Of Phi 4 Multimodal the language model is read, without the adapters for images and sound.
    """

    name: Literal["phi3"] = "phi3"
    model_type: ClassVar[str] = "phi3"
    model_types: ClassVar[tuple[str, ...]] = ("phi4_multimodal",)
    architecture: ClassVar[str] = "Phi3ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | keys(
        "audio_config embd_layer full_attn_mod interpolate_factor vision_config"
    )
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"model\.embed_tokens_extend\..*")
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    partial: ClassVar[bool] = True
    attention_biases: ClassVar[bool] = False

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("attention_bias", False, why="transformers has no biases there")
        config.only("lm_head_bias", False, why="transformers has no bias there")
        return super().model(config)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        # A value beside the mapping has priority in transformers; where it is missing, it is the default of the class.
        key = "original_max_position_embeddings"
        trained, position = config.integer(key, 4096), super().read_position(config)
        scaling = position.get("scaling") or {}
        if scaling.get("name") not in ("llama3", "longrope") or scaling["original_context_length"] == trained:
            return position
        section = config.section("rope_scaling" if config.value("rope_scaling") else "rope_parameters")
        if key in section:
            section.refuse(key, f"transformers reads {key} beside the mapping, which is {trained}; set it there")
        return {**position, "scaling": {**scaling, "original_context_length": trained}}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "window": config.nullable("sliding_window")}

    def config(self, model: Any) -> dict[str, Any]:
        layer = model.layer_specs()[0]
        scaling = layer.position.scaling
        trained = None if scaling is None else scaling.original_context_length
        result = {**super().config(model), "sliding_window": layer.attention.window}
        return {**result, "original_max_position_embeddings": trained or model.context_length}

    def rules(self, model: Any) -> list[Rule]:
        fused = [
            Rule("blocks.*.attention.qkv", "model.layers.*.self_attn.qkv_proj"),
            Rule("blocks.*.feedforward.gate_up", "model.layers.*.mlp.gate_up_proj"),
        ]
        return [*fused, *super().rules(model)]
