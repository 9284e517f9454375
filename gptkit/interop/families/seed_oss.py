"""Seed-OSS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["SeedOssFamily"]


class SeedOssFamily(Decoder):
    """Seed-OSS: Llama with biases on queries, keys and values, and a head size of its own."""

    name: Literal["seed-oss"] = "seed-oss"
    model_type: ClassVar[str] = "seed_oss"
    architecture: ClassVar[str] = "SeedOssForCausalLM"
    d_head: ClassVar[int | None] = 128
    feedforward_biases: ClassVar[bool] = True

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        bias = config.flag("attention_bias", True)
        output_bias = config.flag("attention_out_bias", False)
        return {**super().read_attention(config), "qkv_bias": bias, "output_bias": output_bias}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {**super().write_attention(layers), "attention_out_bias": layers[0].attention.output_bias}
