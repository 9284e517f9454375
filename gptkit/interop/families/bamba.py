"""Bamba."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.hybrids import layers_without
from gptkit.interop.families.parts.mamba.mamba2 import INERT_MAMBA, mamba_rules, read_mamba, write_mamba
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["BambaFamily"]


class BambaFamily(Decoder):
    """Bamba: Mamba-2 in most layers, attention with rotary positions on half of each head in some."""

    name: Literal["bamba"] = "bamba"
    model_type: ClassVar[str] = "bamba"
    architecture: ClassVar[str] = "BambaForCausalLM"
    rank: ClassVar[int] = 11
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT_MAMBA
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    inner: ClassVar[str] = "feed_forward"
    fraction: ClassVar[float] = 0.5
    feedforward_biases: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": "auto", "mamba_d_state": 8, "mamba_n_groups": 2},
    )

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        position = super().read_position(config)
        if "attn_rotary_emb" in config:
            rotated = round(position.get("fraction", 1.0) * self.read_attention(config)["d_head"])
            config.only("attn_rotary_emb", rotated, why=f"transformers reads partial_rotary_factor, which rotates {rotated}")
        return position

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        full = config.items("attn_layer_indices", [])
        mamba = read_mamba(config, self.eps, self.activation)
        return [{} if index in full else mamba for index in range(n_layers)]

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), **write_mamba(model.layer_specs(), model.d_model)}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        indices = [index for index, layer in enumerate(layers) if layer.attention.name != "mamba2"]
        return {**super().write_attention(layers_without(layers, "mamba2")), "attn_layer_indices": indices}

    def rules(self, model: Any) -> list[Rule]:
        named = [
            Rule("blocks.*.feedforward_norm", "model.layers.*.pre_ff_layernorm"),
            Rule("final_norm", "model.final_layernorm"),
        ]
        return [*mamba_rules(model), *named, *super().rules(model)]
