"""Qwen 3."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, Literal

from gptkit.interop.families._gguf import DECODER, read_decoder, write_decoder
from gptkit.interop.families.qwen2 import Qwen2Family
from gptkit.interop.formats.gguf.architecture import Architecture
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

    def gguf(self) -> Architecture:
        return Architecture("qwen3", "qwen3", DECODER, _read, write_decoder)


def _read(keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
    return {**read_decoder(keys, tensors, 128), "attention_bias": False}
