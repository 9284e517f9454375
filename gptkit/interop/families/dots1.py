"""dots.llm1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.glm4_moe import Glm4MoeFamily
from gptkit.interop.families.parts.windows import read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Dots1Family"]


class Dots1Family(Glm4MoeFamily):
    """dots.llm1: DeepSeek V3's experts behind Qwen 3's attention, with optional windows in the upper layers."""

    name: Literal["dots1"] = "dots1"  # type: ignore[assignment]
    model_type: ClassVar[str] = "dots1"
    architecture: ClassVar[str] = "Dots1ForCausalLM"
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "moe_layer_freq": (1,),
        "scoring_func": ("noaux_tc", "sigmoid"),
        "topk_method": ("noaux_tc",),
    }
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-6)
    fraction: ClassVar[float] = 1.0
    output_biases: ClassVar[bool] = True
    first: ClassVar[int] = 0
    renormalizes: ClassVar[bool] = False

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**Decoder.read_attention(self, config), "qk_norm": self.read_norm(config)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        window, first = config.nullable("sliding_window", 4096), config.integer("max_window_layers", 62)
        slides = read_windows(config, [window is not None and index >= first for index in range(n_layers)])
        if window is None and any(slides):
            config.refuse("layer_types", "it has sliding windows, and sliding_window is null")
        sliding = {"attention": {"window": window}}
        layers = super().read_layers(config, n_layers)
        return [{**layer, **sliding} if each else layer for layer, each in zip(layers, slides, strict=True)]

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), **write_windows(model)}
        del result["use_qk_norm"]
        return result
