"""Mistral."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["MistralFamily"]


class MistralFamily(Decoder):
    """Mistral: Llama with a sliding window in every layer."""

    name: Literal["mistral"] = "mistral"
    model_type: ClassVar[str] = "mistral"
    architecture: ClassVar[str] = "MistralForCausalLM"
    attention_biases: ClassVar[bool] = False

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "window": config.nullable("sliding_window", 4096)}

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), "sliding_window": model.layer_specs()[0].attention.window}
