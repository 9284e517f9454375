"""Gemma 4, the text models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.gemma import N_IDS, PER_LAYER, GemmaDecoder, nested, read_first_sharing, read_full_heads
from gptkit.interop.families.parts.gemma.experts import expert_rules, read_experts, write_experts
from gptkit.interop.families.parts.gemma.small import SMALL, SMALL_EXPERTS, TIED
from gptkit.interop.families.parts.gemma.widths import dense_layers, read_wide
from gptkit.interop.families.parts.rope import read_typed
from gptkit.interop.families.parts.windows import all_but_every, read_windows
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Gemma4Family"]


class Gemma4Family(GemmaDecoder):
    """Gemma 4 (text): wide heads in full layers, normalized values, shared keys and values, layer embeddings, experts."""

    name: Literal["gemma4"] = "gemma4"
    model_type: ClassVar[str] = "gemma4_text"
    model_types: ClassVar[tuple[str, ...]] = ("gemma4",)
    architecture: ClassVar[str] = "Gemma4ForCausalLM"
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {**SMALL, PER_LAYER: 8, N_IDS: 128, "num_kv_shared_layers": 2, "use_double_wide_mlp": True},
        {**TIED, PER_LAYER: 0, N_IDS: 128},
        {**SMALL_EXPERTS, PER_LAYER: 0, N_IDS: 128},
    )
    window: ClassVar[int] = 512  # `sliding_window` where the configuration has none

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return read_typed(config, "full_attention", 1e6, "proportional", 0.25)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("use_bidirectional_attention", None, "vision", why="attention is causal here")
        return super().read_attention(config)

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        sandwich = {"name": "sandwich", "feedforward_input_norm": not config.flag("enable_moe_block", False)}
        fields = self.read_layer_embedding(config)
        if not fields["d_embedding"]:
            return {**sandwich, "output_scale": "fixed"}
        if fields["n_ids"] is not None:
            config.refuse(N_IDS, "every token needs an embedding for each layer")
        return {"name": "per-layer-embedding", "block": sandwich, "output_scale": "fixed", **fields}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return read_experts(config, super().read_feedforward(config), self.read_norm(config))

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        slides = [*read_windows(config, all_but_every(6, n_layers))[:-1], False]  # as transformers has the last
        first, window = read_first_sharing(config, slides), config.integer("sliding_window", self.window)
        local = {"scaling": None, **read_typed(config, "sliding_attention", 1e4)}
        wide = read_wide(config, config.integer(self.width), "shared" in self.read_feedforward(config))
        layers: list[dict[str, Any]] = []
        for index, each in enumerate(slides):
            shares = {"reuse_kv": True} if index >= first else {}
            attention = {"window": window} if each else read_full_heads(config, index)
            layer = {"attention": {**attention, **shares}, **({"position": local} if each else {})}
            layers.append({**layer, "feedforward": wide} if wide and shares else layer)
        return layers

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"softcap": config.maybe("final_logit_softcapping")}

    def config(self, model: Any) -> dict[str, Any]:
        layers, result = dense_layers(model.layer_specs()), super().config(model)
        return {**result, "use_double_wide_mlp": layers[-1].feedforward.d_hidden != result[self.width]}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {**super().write_feedforward(dense_layers(layers)), **write_experts(layers)}

    def rules(self, model: Any) -> list[Rule]:
        scale = Rule("blocks.*.output_scale", "model.layers.*.layer_scalar")
        return [scale, *nested(expert_rules()), *super().rules(model)]
