"""Flint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.experts import first_of
from gptkit.interop.families.parts.windows import read_windows, write_windows
from gptkit.interop.families.qwen3_moe import Qwen3MoeFamily
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["FlintFamily"]


class FlintFamily(Qwen3MoeFamily):
    """Flint: Qwen 3's attention with sinks, windows with rotary positions or neither, experts and a shared one."""

    name: Literal["flint"] = "flint"  # type: ignore[assignment]
    model_type: ClassVar[str] = "flint"
    architecture: ClassVar[str] = "FlintForCausalLM"
    d_head: ClassVar[int | None] = 128
    experts: ClassVar[tuple[int, int, int]] = (256, 6, 512)
    renormalizes: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"mlp_only_layers": [0]},)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "sinks": True}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        result = super().read_feedforward(config)
        shared = {**result["expert"], "d_hidden": config.integer("shared_expert_intermediate_size", 1024)}
        return {**result, "router": {**result["router"], "name": "sigmoid"}, "shared": shared}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        config.items("mlp_only_layers", [0, 1])  # the default of the base is none
        slide = {"attention": {"window": config.integer("sliding_window", 513)}}
        default = [index >= 2 and index % 4 != 1 and index != n_layers - 1 for index in range(n_layers)]
        layers = super().read_layers(config, n_layers)
        slides = read_windows(config, default)
        return [{**layer, **(slide if each else {"position": "none"})} for layer, each in zip(layers, slides, strict=True)]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        shared = first_of(layers, "experts").shared
        return {**super().write_feedforward(layers), "shared_expert_intermediate_size": shared.d_hidden}

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), **write_windows(model)}
        del result["use_sliding_window"]
        return result

    def rules(self, model: Any) -> list[Rule]:
        return [Rule("blocks.*.attention.sinks", "model.layers.*.self_attn.softmax_offset"), *super().rules(model)]
