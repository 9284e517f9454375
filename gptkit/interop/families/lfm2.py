"""LFM2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.layers import read_types
from gptkit.interop.families.parts.short_conv import conv_rules, read_conv, write_conv
from gptkit.interop.layouts import HALVES
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Lfm2Family"]


class Lfm2Family(Decoder):
    """LFM2: short gated convolutions in most layers, grouped queries with norms in the others."""

    name: Literal["lfm2"] = "lfm2"
    model_type: ClassVar[str] = "lfm2"
    architecture: ClassVar[str] = "Lfm2ForCausalLM"
    rank: ClassVar[int] = 11
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | keys(
        "block_dim block_mlp_init_scale block_norm_eps block_out_init_scale block_use_swiglu block_use_xavier_init conv_dim "
        "conv_dim_out conv_use_xavier_init num_heads theta use_pos_enc"
    )
    tied: ClassVar[bool] = True
    eps: ClassVar[tuple[str, float]] = ("norm_eps", 1e-5)
    base: ClassVar[float] = 1000000.0
    attention_biases: ClassVar[bool] = False
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"layer_types": ["conv", "full_attention"] * 2},)
    norms: ClassVar[Mapping[str, str]] = {
        "attention_norm": "operator_norm",
        "feedforward_norm": "ffn_norm",
        "attention.output": "self_attn.out_proj",
        "attention.q_norm": "self_attn.q_layernorm",
        "attention.k_norm": "self_attn.k_layernorm",
    }
    """External names in a layer that differ from Llama's, by the native ones."""

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        if config.value("tie_embedding") not in (None, config.flag("tie_word_embeddings", self.tied)):
            config.refuse("tie_embedding", "tie_word_embeddings has another value")
        return super().model(config)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qk_norm": self.read_norm(config)}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        width = config.integer(config.alias("intermediate_size", "block_ff_dim"), 12288)
        multiple, factor = config.integer("block_multiple_of", 256), config.number("block_ffn_dim_multiplier", 1.0)
        if config.flag("block_auto_adjust_ff_dim", True):
            width = -(-int(factor * int(2 * width / 3)) // max(1, multiple)) * multiple
        return {"name": "gated", "d_hidden": width}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        full = config.items("full_attn_idxs", list(range(n_layers)))
        usual = ["full_attention" if index in full else "conv" for index in range(n_layers)]
        conv = read_conv(config, 3)  # its keys are there even where no layer has a convolution
        return [conv if kind == "conv" else {} for kind in read_types(config, n_layers, usual, ("conv", "full_attention"))]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = super().write_attention([layer for layer in layers if layer.attention.name != "short-conv"])
        return {**result, **write_conv(layers)}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {"intermediate_size": layers[0].feedforward.d_hidden, "block_auto_adjust_ff_dim": False}

    def rules(self, model: Any) -> list[Rule]:
        return [
            *conv_rules(model),
            *(Rule(f"blocks.*.{native}", f"model.layers.*.{external}") for native, external in self.norms.items()),
            Rule("blocks.*.feedforward.gate_up", "model.layers.*.feed_forward.{w1,w3}", HALVES),
            Rule("blocks.*.feedforward.down", "model.layers.*.feed_forward.w2"),
            Rule("final_norm", "model.embedding_norm"),
            *super().rules(model),
        ]
