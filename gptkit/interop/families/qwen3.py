"""Qwen 3."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.qwen2 import Qwen2Family
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Qwen3Family"]


class Qwen3Family(Qwen2Family):
    """Qwen 3: a norm for every head's query and key in place of Qwen 2's biases."""

    name: Literal["qwen3"] = "qwen3"  # type: ignore[assignment]
    model_type: ClassVar[str] = "qwen3"
    architecture: ClassVar[str] = "Qwen3ForCausalLM"
    attention_biases: ClassVar[bool] = True
    d_head: ClassVar[int | None] = 128

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        bias = config.flag("attention_bias", False)
        norm = self.read_norm(config)
        return {**super().read_attention(config), "qk_norm": norm, "qkv_bias": bias, "output_bias": bias}
