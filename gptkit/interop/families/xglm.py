"""XGLM."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families._common import keys, read_activation, write_activation
from gptkit.interop.families.biogpt import BioGptFamily
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["XGLMFamily"]

NAMES = {"num_attention_heads": "attention_heads", "hidden_size": "d_model", "num_hidden_layers": "num_layers"}
OFFSET = 2
"""Number of rows of the table of positions that no token reads."""


class XGLMFamily(FamilySpec):
    """XGLM: sinusoidal positions from 2 on, embeddings multiplied by √d_model, biases everywhere."""

    name: Literal["xglm"] = "xglm"
    model_type: ClassVar[str] = "xglm"
    architecture: ClassVar[str] = "XGLMForCausalLM"
    harmless: ClassVar[frozenset[str]] = keys("activation_dropout init_std layerdrop")
    ignored: ClassVar[tuple[str, ...]] = (r"model\.embed_positions\.weights",)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.use_names(
            {"num_attention_heads": "attention_heads", "hidden_size": "d_model", "num_hidden_layers": "num_layers"}
        )
        config.value("decoder_start_token_id")  # for generation only
        # The class writes zeros over the row of this number in the table of positions.
        if (padding := config.value("pad_token_id", 1)) >= OFFSET:
            config.refuse("pad_token_id", f"transformers removes the position of token {padding - OFFSET}; set it to 1")
        return {
            "context_length": config.integer("max_position_embeddings", 2048),
            "d_model": config.integer("hidden_size", 1024),
            "n_layers": config.layers("num_hidden_layers", 24),
            "vocab_size": config.integer("vocab_size", 256008),
            "embedding": {"name": "token", "scale": "sqrt" if config.flag("scale_embedding", True) else None},
            "position": {"name": "sinusoidal", "layout": "half", "offset": OFFSET, "endpoint": True},
            "attention": {
                "name": "multi-head",
                "n_heads": config.integer("num_attention_heads", 16),
                "qkv_bias": True,
                "output_bias": True,
            },
            "norm": "layer",
            "feedforward": {
                "name": "mlp",
                "d_hidden": config.integer("ffn_dim", 4096),
                "activation": read_activation(config, "activation_function", "gelu"),
            },
            "block": "pre-norm",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {
            "max_position_embeddings": model.context_length,
            "d_model": model.d_model,
            "num_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            "scale_embedding": model.embedding.scale is not None,
            "attention_heads": model.attention.n_heads,
            "ffn_dim": model.feedforward.d_hidden,
            "activation_function": write_activation(model.feedforward.activation),
            "tie_word_embeddings": model.head.tied,
            "pad_token_id": 1,
        }

    def rules(self, model: Any) -> list[Rule]:
        names = {"output_projection": "lm_head", "biogpt.": "model."}
        rules = BioGptFamily(name="biogpt").rules(model)
        for old, new in names.items():
            rules = [Rule(each.native, each.external.replace(old, new), each.layout) for each in rules]
        return rules
