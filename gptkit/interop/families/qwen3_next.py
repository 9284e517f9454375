"""Qwen3-Next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families._common import every
from gptkit.interop.families._experts import first_of
from gptkit.interop.families.qwen3_moe import Qwen3MoeFamily
from gptkit.interop.layouts import GATED_HEADS, MIXED_HEADS, MIXED_RATES
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Qwen3NextFamily"]

LINEAR = {
    "n_heads": ("linear_num_key_heads", 16),
    "n_value_heads": ("linear_num_value_heads", 32),
    "d_key": ("linear_key_head_dim", 128),
    "d_value": ("linear_value_head_dim", 128),
    "conv_width": ("linear_conv_kernel_dim", 4),
}
"""Fields of linear attention, with their keys and the defaults of these."""


class Qwen3NextFamily(Qwen3MoeFamily):
    """Qwen3-Next: three layers of linear attention to one of gated full attention, experts and a gated shared one."""

    name: Literal["qwen3-next"] = "qwen3-next"  # type: ignore[assignment]
    model_type: ClassVar[str] = "qwen3_next"
    architecture: ClassVar[str] = "Qwen3NextForCausalLM"
    harmless: ClassVar[frozenset[str]] = Qwen3MoeFamily.harmless | {"full_attention_interval"}
    ignored: ClassVar[tuple[str, ...]] = (*Qwen3MoeFamily.ignored, r"mtp\..*")
    d_head: ClassVar[int | None] = 256
    fraction: ClassVar[float] = 0.25
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"linear_key_head_dim": 8, "linear_value_head_dim": 8},)
    experts: ClassVar[tuple[int, int, int]] = (512, 10, 512)

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "offset": 1, "cast": "after"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "output_gate": True}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("hidden_act", "silu", why="linear attention has it fixed here, and shares the key")
        result = super().read_feedforward(config)
        result["router"]["renormalize"] = config.flag("norm_topk_prob", True)
        shared = {**result["expert"], "d_hidden": config.integer("shared_expert_intermediate_size", 512)}
        return {**result, "shared": shared, "shared_gate": True}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        full = every(config.integer("full_attention_interval", 4), n_layers)
        types = config.items("layer_types", ["full_attention" if each else "linear_attention" for each in full])
        linear: dict[str, Any] = {"name": "gated-delta", "norm": {"name": "rms", "eps": config.number(*self.eps)}}
        linear |= {native: config.integer(*key) for native, key in LINEAR.items()}
        changed = {"linear_attention": {"attention": linear, "position": "none"}}
        return [{**each, **changed.get(t, {})} for t, each in zip(types, super().read_layers(config, n_layers), strict=True)]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        linear = next(layer.attention for layer in layers if layer.attention.name == "gated-delta")
        full = [layer for layer in layers if layer.attention.name != "gated-delta"]
        sizes = {key: getattr(linear, native) for native, (key, _) in LINEAR.items()}
        types = ["full_attention" if layer in full else "linear_attention" for layer in layers]
        return {**super().write_attention(full), "layer_types": types, **sizes}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = {"shared_expert_intermediate_size": first_of(layers, "experts").shared.d_hidden}
        return {**super().write_feedforward(layers), **result}

    def rules(self, model: Any) -> list[Rule]:
        native, external = "blocks.*.attention", "model.layers.*.linear_attn"
        names = {"conv": "conv1d", "norm": "norm", "decay_log": "A_log", "decay_bias": "dt_bias"}
        linear = [Rule(f"{native}.{inner}", f"{external}.{outer}") for inner, outer in names.items()]
        mixed = {"qkvz": ("in_proj_qkvz", MIXED_HEADS), "rates": ("in_proj_ba", MIXED_RATES)}
        linear += [Rule(f"{native}.{inner}", f"{external}.{outer}", layout) for inner, (outer, layout) in mixed.items()]
        bare = [i for i, layer in enumerate(model.layer_specs()) if layer.attention.name == "gated-delta"]
        linear += [Rule(f"blocks.{i}.attention.output", f"model.layers.{i}.linear_attn.out_proj") for i in bare]
        return [*linear, Rule(f"{native}.qkv", "model.layers.*.self_attn.{q,k,v}_proj", GATED_HEADS), *super().rules(model)]
