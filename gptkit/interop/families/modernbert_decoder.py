"""ModernBERT's decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.activations import read_activation
from gptkit.interop.families.parts.layers import pattern
from gptkit.interop.families.parts.modernbert import INERT, TINY, read_layers, read_position, write_layers
from gptkit.interop.families.parts.modernbert_tensors import layer_rules
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["ModernBertDecoderFamily"]


class ModernBertDecoderFamily(FamilySpec):
    """ModernBERT's decoder (Ettin): GEGLU, two layers with a window to a full one, and a layer before the vocabulary."""

    name: Literal["modernbert-decoder"] = "modernbert-decoder"
    model_type: ClassVar[str] = "modernbert-decoder"
    architecture: ClassVar[str] = "ModernBertDecoderForCausalLM"
    harmless: ClassVar[frozenset[str]] = INERT
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (TINY,)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        n_layers, bias = config.layers("num_hidden_layers", 22), config.flag("attention_bias", False)
        eps, shift = config.number("norm_eps", 1e-5), config.flag("norm_bias", False)
        norm = {"name": "layer", "eps": eps, "shift": shift}
        return {
            "context_length": config.integer("max_position_embeddings", 8192),
            "d_model": config.integer("hidden_size", 768),
            # With the layer before the vocabulary.
            "n_layers": n_layers + 1,
            "vocab_size": config.integer("vocab_size", 50368),
            "embedding": {"name": "token", "norm": norm},
            "position": read_position(config),
            "attention": {
                "name": "multi-head",
                "n_heads": config.integer("num_attention_heads", 12),
                **dict.fromkeys(("qkv_bias", "output_bias"), bias),
            },
            "norm": norm,
            "feedforward": {
                "name": "gated",
                "d_hidden": config.integer("intermediate_size", 1152),
                "activation": read_activation(config, "hidden_activation", "gelu"),
                "bias": config.flag("mlp_bias", False),
            },
            "block": "pre-norm",
            "layers": pattern(read_layers(config, n_layers)),
            "head": {
                "name": "linear",
                "tied": config.flag("tie_word_embeddings", True),
                "bias": config.flag("decoder_bias", True),
            },
        }

    def config(self, model: Any) -> dict[str, Any]:
        *layers, last = model.layer_specs()
        return {
            "max_position_embeddings": model.context_length,
            "hidden_size": model.d_model,
            "vocab_size": model.vocab_size,
            **write_layers(layers, last),
            "tie_word_embeddings": model.head.tied,
            "decoder_bias": model.head.bias,
            # The class does not accept null.
            **dict.fromkeys(("bos_token_id", "pad_token_id"), 0),
        }

    def rules(self, model: Any) -> list[Rule]:
        return [
            *layer_rules(model.n_layers),
            Rule("embedding.table", "model.embeddings.tok_embeddings"),
            Rule("embedding.norm", "model.embeddings.norm"),
            Rule("final_norm", "lm_head.norm"),
            Rule("head", "decoder"),
        ]
