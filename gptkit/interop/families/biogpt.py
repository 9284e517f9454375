"""BioGPT."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families._common import keys, read_activation, write_activation
from gptkit.interop.layouts import HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["BioGptFamily"]


class BioGptFamily(FamilySpec):
    """BioGPT: learned positions with two unused rows, embeddings multiplied by √d_model, biases everywhere."""

    name: Literal["biogpt"] = "biogpt"
    model_type: ClassVar[str] = "biogpt"
    architecture: ClassVar[str] = "BioGptForCausalLM"
    prefix: ClassVar[str] = "biogpt."
    # transformers' layer norms have torch's epsilon, whatever `layer_norm_eps` is.
    harmless: ClassVar[frozenset[str]] = keys(
        "activation_dropout attention_probs_dropout_prob hidden_dropout_prob layer_norm_eps layerdrop"
    )

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        return {
            "context_length": config.integer("max_position_embeddings", 1024),
            "d_model": config.integer("hidden_size", 1024),
            "n_layers": config.layers("num_hidden_layers", 24),
            "vocab_size": config.integer("vocab_size", 42384),
            "embedding": {"name": "token", "scale": "sqrt" if config.flag("scale_embedding", True) else None},
            "position": {"name": "learned", "offset": 2},
            "attention": {
                "name": "multi-head",
                "n_heads": config.integer("num_attention_heads", 16),
                "qkv_bias": True,
                "output_bias": True,
            },
            "norm": "layer",
            "feedforward": {
                "name": "mlp",
                "d_hidden": config.integer("intermediate_size", 4096),
                "activation": read_activation(config, "hidden_act", "gelu"),
            },
            "block": "pre-norm",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {
            "max_position_embeddings": model.context_length,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            "scale_embedding": model.embedding.scale is not None,
            "num_attention_heads": model.attention.n_heads,
            "intermediate_size": model.feedforward.d_hidden,
            "hidden_act": write_activation(model.feedforward.activation),
            "tie_word_embeddings": model.head.tied,
        }

    def rules(self, model: Any) -> list[Rule]:
        layer = "biogpt.layers.*"
        return [
            Rule("embedding.table", "biogpt.embed_tokens"),
            Rule("embedding.position.table", "biogpt.embed_positions"),
            Rule("blocks.*.attention_norm", f"{layer}.self_attn_layer_norm"),
            Rule("blocks.*.attention.qkv", f"{layer}.self_attn.{{q,k,v}}_proj", HEADS),
            Rule("blocks.*.attention.output", f"{layer}.self_attn.out_proj"),
            Rule("blocks.*.feedforward_norm", f"{layer}.final_layer_norm"),
            Rule("blocks.*.feedforward.up", f"{layer}.fc1"),
            Rule("blocks.*.feedforward.down", f"{layer}.fc2"),
            Rule("final_norm", "biogpt.layer_norm"),
            Rule("head", "output_projection"),
        ]
