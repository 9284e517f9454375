"""LFM3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.lfm2 import Lfm2Family
from gptkit.interop.families.parts.hybrids import layers_without
from gptkit.interop.families.parts.layers import read_types
from gptkit.interop.families.parts.rope import by_type, read_typed
from gptkit.interop.families.parts.short_conv import read_conv
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Lfm3Family"]

TYPES = ("conv", "full_attention", "sliding_attention")


class Lfm3Family(Lfm2Family):
    """LFM3: short gated convolutions, full attention and sliding windows in turn, gated heads, norms around each branch."""

    name: Literal["lfm3"] = "lfm3"  # type: ignore[assignment]
    model_type: ClassVar[str] = "lfm3"
    model_types: ClassVar[tuple[str, ...]] = ("lfm3_vl",)
    architecture: ClassVar[str] = "Lfm3ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless
    prefixes: ClassVar[Mapping[str, str]] = {"model.language_model.": "model."}
    renames: ClassVar[tuple[tuple[str, str], ...]] = ((r"\.self_attn\.gate_proj\.", ".self_attn.g_proj."),)
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"model\.(vision_tower|multi_modal_projector)\..*")
    d_head: ClassVar[int | None] = 128
    attention_biases: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"head_dim": 16, "sliding_window": 6, "layer_types": [*TYPES, "conv"]},)
    norms: ClassVar[Mapping[str, str]] = {
        "attention_norm": "operator_norm",
        "attention_output_norm": "post_operator_norm",
        "feedforward_norm": "ffn_norm",
        "feedforward_output_norm": "post_ffn_norm",
    }

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return read_typed(config, "full_attention", 1e6, "proportional", 0.5)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        gate = "sigmoid" if config.flag("use_attention_gate", True) else None
        return {**super().read_attention(config), "head_gate": gate}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "gated", "d_hidden": config.integer("intermediate_size", 7680)}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "sandwich" if config.flag("use_sandwich_norm", True) else "pre-norm"}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        usual = [TYPES[1] if index % 4 == 2 else TYPES[0 if index % 4 or not index else 2] for index in range(n_layers)]
        local = {"scaling": None, **read_typed(config, TYPES[2], 1e6 if "rope_parameters" in config else 1e4)}
        slides = {"attention": {"window": config.integer("sliding_window", 256)}, "position": local}
        forms = {TYPES[0]: read_conv(config, 7), TYPES[1]: {}, TYPES[2]: slides}
        return [forms[kind] for kind in read_types(config, n_layers, usual, TYPES)]

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        result = by_type(super().config(model), layers_without(layers, "short-conv"))
        return {**result, "use_sandwich_norm": layers[0].block.name == "sandwich"}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        slides = [getattr(layer.attention, "window", None) for layer in layers]
        gated = any(getattr(layer.attention, "head_gate", None) for layer in layers)
        result = super().write_attention(layers)
        kinds = ["sliding_attention" if own else kind for own, kind in zip(slides, result["layer_types"], strict=True)]
        result |= {"sliding_window": next((each for each in slides if each), None), "use_attention_gate": gated}
        return {**result, "layer_types": kinds}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {"intermediate_size": layers[0].feedforward.d_hidden}

    def rules(self, model: Any) -> list[Rule]:
        return [Rule("blocks.*.attention.head_gate", "model.layers.*.self_attn.g_proj"), *super().rules(model)]
