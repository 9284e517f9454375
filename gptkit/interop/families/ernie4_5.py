"""ERNIE 4.5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Ernie45Family"]


class Ernie45Family(Decoder):
    """ERNIE 4.5: Llama with rotary on neighboring features, and one key for all biases."""

    name: Literal["ernie4.5"] = "ernie4.5"
    model_type: ClassVar[str] = "ernie4_5"
    architecture: ClassVar[str] = "Ernie4_5ForCausalLM"
    tied: ClassVar[bool] = True
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    base: ClassVar[float] = 500000.0
    d_head: ClassVar[int | None] = 128
    attention_biases: ClassVar[bool] = False

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_position(config), "layout": "interleaved"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        bias = config.flag("use_bias", False)
        return {**super().read_attention(config), "qkv_bias": bias, "output_bias": bias}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "bias": config.flag("use_bias", False)}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {**super().write_attention(layers), "use_bias": layers[0].attention.qkv_bias}
