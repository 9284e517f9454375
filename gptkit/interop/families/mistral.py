"""Mistral."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["MistralFamily"]


class MistralFamily(Decoder):
    """Mistral, also of Mistral Small 3: Llama with an optional sliding window in every layer."""

    name: Literal["mistral"] = "mistral"
    model_type: ClassVar[str] = "mistral"
    model_types: ClassVar[tuple[str, ...]] = ("mistral3",)
    architecture: ClassVar[str] = "MistralForCausalLM"
    prefixes: ClassVar[Mapping[str, str]] = {"model.language_model.": "model.", "language_model.": ""}
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"(model\.)?(vision_tower|multi_modal_projector)\..*")
    attention_biases: ClassVar[bool] = False

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "window": config.nullable("sliding_window", 4096)}

    def config(self, model: Any) -> dict[str, Any]:
        windows = [layer.attention.window for layer in model.layer_specs() if hasattr(layer.attention, "window")]
        return {**super().config(model), "sliding_window": windows[0]}
