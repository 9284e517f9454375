"""Qwen3-Next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.experts import first_of
from gptkit.interop.families.parts.gated_delta import DELTA, PATTERN, delta_rules, read_delta, read_delta_types, write_delta
from gptkit.interop.families.parts.hybrids import layers_without
from gptkit.interop.families.qwen3_moe import Qwen3MoeFamily
from gptkit.interop.layouts import GATED_HEADS, MIXED_HEADS, MIXED_RATES
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Qwen3NextFamily"]


class Qwen3NextFamily(Qwen3MoeFamily):
    """Qwen3-Next: three layers of linear attention to one of gated full attention, experts and a gated shared one."""

    name: Literal["qwen3-next"] = "qwen3-next"  # type: ignore[assignment]
    model_type: ClassVar[str] = "qwen3_next"
    architecture: ClassVar[str] = "Qwen3NextForCausalLM"
    harmless: ClassVar[frozenset[str]] = Qwen3MoeFamily.harmless | {PATTERN}
    ignored: ClassVar[tuple[str, ...]] = (*Qwen3MoeFamily.ignored, r"mtp\..*")
    d_head: ClassVar[int | None] = 256
    fraction: ClassVar[float] = 0.25
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"linear_key_head_dim": 8, "linear_value_head_dim": 8},)
    experts: ClassVar[tuple[int, int, int]] = (512, 10, 512)
    renormalizes: ClassVar[bool] = True

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "offset": 1, "cast": "after"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "output_gate": True}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        result = super().read_feedforward(config)
        shared = {**result["expert"], "d_hidden": config.integer("shared_expert_intermediate_size", 512)}
        return {**result, "shared": shared, "shared_gate": True}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        linear = read_delta(config, config.number(*self.eps))
        types = read_delta_types(config, n_layers)
        layers = super().read_layers(config, n_layers)
        return [{**layer, **linear} if each else layer for layer, each in zip(layers, types, strict=True)]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {**super().write_attention(layers_without(layers, DELTA)), **write_delta(layers)}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = {"shared_expert_intermediate_size": first_of(layers, "experts").shared.d_hidden}
        return {**super().write_feedforward(layers), **result}

    def rules(self, model: Any) -> list[Rule]:
        native, external = "blocks.*.attention", "model.layers.*"
        mixed = {"qkvz": ("in_proj_qkvz", MIXED_HEADS), "rates": ("in_proj_ba", MIXED_RATES)}
        return [
            *delta_rules(model),
            *(Rule(f"{native}.{own}", f"{external}.linear_attn.{name}", way) for own, (name, way) in mixed.items()),
            Rule(f"{native}.qkv", f"{external}.self_attn.{{q,k,v}}_proj", GATED_HEADS),
            *super().rules(model),
        ]
