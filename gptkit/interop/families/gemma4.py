"""Gemma 4, the dense text models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families._common import all_but_every, read_windows
from gptkit.interop.families._gemma import N_IDS, PER_LAYER, GemmaDecoder, read_first_sharing, read_full_heads
from gptkit.interop.families._rope import read_typed
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Gemma4Family"]

SMALL = {"head_dim": 16, "global_head_dim": 32, "sliding_window": 6, N_IDS: 128}
TYPES = ["sliding_attention", "full_attention"] * 2


class Gemma4Family(GemmaDecoder):
    """Gemma 4 (text): wide heads in full layers, normalized values, layers that share keys and values, layer embeddings."""

    name: Literal["gemma4"] = "gemma4"
    model_type: ClassVar[str] = "gemma4_text"
    model_types: ClassVar[tuple[str, ...]] = ("gemma4",)
    architecture: ClassVar[str] = "Gemma4ForCausalLM"
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {**SMALL, PER_LAYER: 8, "layer_types": TYPES, "num_kv_shared_layers": 2, "use_double_wide_mlp": True},
        # A norm of one feature, a variant of none, is well conditioned with such an epsilon.
        {**SMALL, PER_LAYER: 0, "rms_norm_eps": 0.1, "attention_k_eq_v": True, "num_global_key_value_heads": 1}
        | {"layer_types": TYPES},
    )

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return read_typed(config, "full_attention", 1e6, "proportional", 0.25)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("use_bidirectional_attention", None, "vision", why="attention is causal here")
        return super().read_attention(config)

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("enable_moe_block", False, why="gptkit has no such experts")
        for key in ("num_experts", "top_k_experts", "moe_intermediate_size"):
            config.value(key)
        fields = self.read_layer_embedding(config)
        if not fields["d_embedding"]:
            return {"name": "sandwich", "output_scale": "fixed"}
        if fields["n_ids"] is not None:
            config.refuse(N_IDS, "every token needs an embedding for each layer")
        return {"name": "per-layer-embedding", "block": {"name": "sandwich"}, "output_scale": "fixed", **fields}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        slides = [*read_windows(config, n_layers, all_but_every(6, n_layers))[:-1], False]  # as transformers has the last
        first, window = read_first_sharing(config, slides), config.integer("sliding_window", 512)
        local = {"scaling": None, **read_typed(config, "sliding_attention", 1e4)}
        wide = {"d_hidden": 2 * config.integer(self.width)} if config.flag("use_double_wide_mlp", False) else None
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
        layers, result = model.layer_specs(), super().config(model)
        return {**result, "use_double_wide_mlp": layers[-1].feedforward.d_hidden != result[self.width]}

    def rules(self, model: Any) -> list[Rule]:
        return [Rule("blocks.*.output_scale", "model.layers.*.layer_scalar"), *super().rules(model)]
