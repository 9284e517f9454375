"""Ministral 8B of 2024."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.windows import read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["MinistralFamily"]


class MinistralFamily(Decoder):
    """Ministral 8B: Llama with sliding windows in some layers."""

    name: Literal["ministral"] = "ministral"
    model_type: ClassVar[str] = "ministral"
    architecture: ClassVar[str] = "MinistralForCausalLM"
    rank: ClassVar[int] = 11
    attention_biases: ClassVar[bool] = False

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        window = config.nullable("sliding_window", 4096)
        slides = read_windows(config, [window is not None] * n_layers)
        if window is None and any(slides):
            config.refuse("layer_types", "it has sliding windows, and sliding_window is null")
        return [{"attention": {"window": window}} if each else {} for each in slides]

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), **write_windows(model, 4096)}
