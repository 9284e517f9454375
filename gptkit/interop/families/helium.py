"""Helium."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["HeliumFamily"]


class HeliumFamily(Decoder):
    """Helium 1: Llama with rotary on neighboring features, and norms that multiply in fp32."""

    name: Literal["helium"] = "helium"
    model_type: ClassVar[str] = "helium"
    architecture: ClassVar[str] = "HeliumForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-8)
    base: ClassVar[float] = 100000.0
    d_head: ClassVar[int | None] = 128
    output_biases: ClassVar[bool] = False
    feedforward_biases: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"head_dim": 16},)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_position(config), "layout": "interleaved"}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "cast": "after"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        d_head = config.integer("hidden_size") // max(1, config.integer("num_attention_heads"))
        config.only("head_dim", d_head, why="transformers projects as many features as the model's width")
        return super().read_attention(config)
