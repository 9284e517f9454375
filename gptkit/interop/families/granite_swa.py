"""Granite with sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.granite import GraniteFamily
from gptkit.interop.families.parts.layers import read_each
from gptkit.interop.families.parts.windows import read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GraniteSWAFamily"]


class GraniteSWAFamily(GraniteFamily):
    """Granite with attention sinks, windows in three of four layers, and a rotary base, or none, for each layer."""

    name: Literal["granite-swa"] = "granite-swa"  # type: ignore[assignment]
    model_type: ClassVar[str] = "granite_swa"
    architecture: ClassVar[str] = "GraniteSWAForCausalLM"
    tied: ClassVar[bool] = True
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "sinks": True}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        window, rotary = config.nullable("sliding_window", 128), self.read_position(config)
        slides = read_windows(config, [index % 4 != 0 for index in range(n_layers)])
        bases = read_each(config, "layer_rope_theta", [rotary["base"]] * n_layers)
        layers: list[dict[str, Any]] = [{"attention": {"window": window}} if each else {} for each in slides]
        for layer, base in zip(layers, bases, strict=True):
            if base != rotary["base"]:
                layer["position"] = {"base": base} if base else "none"
        return layers

    def config(self, model: Any) -> dict[str, Any]:
        bases = [getattr(layer.position, "base", 0) for layer in model.layer_specs()]
        return {**super().config(model), **write_windows(model, 128), "layer_rope_theta": bases}

    def rules(self, model: Any) -> list[Rule]:
        return [Rule("blocks.*.attention.sinks", "model.layers.*.self_attn.sinks"), *super().rules(model)]
