"""BLOOM."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.keys import keys
from gptkit.interop.layouts import GROUPED
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["BloomFamily"]


class BloomFamily(FamilySpec):
    """BLOOM: ALiBi, layer norms (the embeddings have one too), biases everywhere."""

    name: Literal["bloom"] = "bloom"
    model_type: ClassVar[str] = "bloom"
    architecture: ClassVar[str] = "BloomForCausalLM"
    prefix: ClassVar[str] = "transformer."
    harmless: ClassVar[frozenset[str]] = keys(
        "pretraining_tp slow_but_exact attention_softmax_in_fp32 bias_dropout_fusion masked_softmax_fusion "
        "skip_bias_add skip_bias_add_qkv offset_alibi unk_token_id"
    )

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("apply_residual_connection_post_layernorm", False, why="the shortcut is taken before the norm here")
        norm = {"name": "layer", "eps": config.number("layer_norm_epsilon", 1e-5)}
        return {
            # ALiBi has no limit; this is the length in training.
            "context_length": config.integer("seq_length", 2048),
            "d_model": config.integer(config.alias("hidden_size", "n_embed"), 64),
            "n_layers": config.layers(config.alias("n_layer", "num_hidden_layers"), 2),
            "vocab_size": config.integer("vocab_size"),
            "embedding": {"name": "token", "norm": norm},
            "position": "alibi",
            "attention": {
                "name": "multi-head",
                "n_heads": config.integer(config.alias("n_head", "num_attention_heads"), 8),
                "qkv_bias": True,
                "output_bias": True,
            },
            "norm": norm,
            "feedforward": {"name": "mlp", "activation": "gelu-tanh"},
            "block": "pre-norm",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {
            "seq_length": model.context_length,
            "hidden_size": model.d_model,
            "n_layer": model.n_layers,
            "vocab_size": model.vocab_size,
            "n_head": model.attention.n_heads,
            "layer_norm_epsilon": model.norm.eps,
            "tie_word_embeddings": model.head.tied,
        }

    def rules(self, model: Any) -> list[Rule]:
        layer = "transformer.h.*"
        return [
            Rule("embedding.table", "transformer.word_embeddings"),
            Rule("embedding.norm", "transformer.word_embeddings_layernorm"),
            Rule("blocks.*.attention_norm", f"{layer}.input_layernorm"),
            Rule("blocks.*.attention.qkv", f"{layer}.self_attention.query_key_value", GROUPED),
            Rule("blocks.*.attention.output", f"{layer}.self_attention.dense"),
            Rule("blocks.*.feedforward_norm", f"{layer}.post_attention_layernorm"),
            Rule("blocks.*.feedforward.up", f"{layer}.mlp.dense_h_to_4h"),
            Rule("blocks.*.feedforward.down", f"{layer}.mlp.dense_4h_to_h"),
            Rule("final_norm", "transformer.ln_f"),
            Rule("head", "lm_head"),
        ]
