"""InternLM 3."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["InternLM3Family"]


class InternLM3Family(Decoder):
    """InternLM 3: Llama with a head size of its own, and biases everywhere or nowhere."""

    name: Literal["internlm3"] = "internlm3"
    model_type: ClassVar[str] = "internlm3"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    d_head: ClassVar[int | None] = 128
    feedforward_biases: ClassVar[bool] = True

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        bias = config.flag(config.alias("attention_bias", "qkv_bias"), False)
        return {**super().read_attention(config), "qkv_bias": bias, "output_bias": bias}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        bias = config.flag(config.alias("mlp_bias", "bias"), False)
        if bias != config.flag(config.alias("attention_bias", "qkv_bias"), False):
            config.refuse("attention_bias", "transformers has either all biases or none")
        return {**super().read_feedforward(config), "bias": bias}
