"""Llama, and the families that differ from it in a bias, a window or a norm."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.families._decoder import Decoder
from gptkit.kinds.foreign import ForeignConfig

__all__ = ["LlamaFamily", "MistralFamily"]


class LlamaFamily(Decoder):
    """Llama 1 to 3, SmolLM2, TinyLlama, Falcon 3: pre-norm, rotary, grouped queries, SwiGLU."""

    name: Literal["llama"] = "llama"
    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"


class MistralFamily(Decoder):
    """Mistral: Llama with a sliding window in every layer."""

    name: Literal["mistral"] = "mistral"
    model_type: ClassVar[str] = "mistral"
    architecture: ClassVar[str] = "MistralForCausalLM"
    attention_biases: ClassVar[bool] = False

    def read_attention(self, config: ForeignConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "window": config.nullable("sliding_window", 4096)}

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), "sliding_window": model.layer_specs()[0].attention.window}
