"""Qwen 2 and 2.5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.windows import read_windows
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Qwen2Family"]


class Qwen2Family(Decoder):
    """Qwen 2 and 2.5: Llama with biases on queries, keys and values, and optional attention windows in the upper layers."""

    name: Literal["qwen2"] = "qwen2"
    model_type: ClassVar[str] = "qwen2"
    architecture: ClassVar[str] = "Qwen2ForCausalLM"
    attention_biases: ClassVar[bool] = False

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qkv_bias": True}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        first = config.integer("max_window_layers", 28)
        window = config.nullable("sliding_window", 4096)
        on = config.flag("use_sliding_window", False) and window is not None
        default = [on and index >= first for index in range(n_layers)]
        slides = read_windows(config, default)
        if any(slides) and not on:
            config.refuse("layer_types", "it has sliding windows, which use_sliding_window or sliding_window switch off")
        return [{"attention": {"window": window}} if each else {} for each in slides]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        windows = [layer.attention.window for layer in layers]
        return {
            **super().write_attention(layers),
            "use_sliding_window": any(windows),
            "sliding_window": max((window or 0 for window in windows), default=0) or None,
            "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
        }
