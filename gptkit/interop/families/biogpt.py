"""BioGPT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.fairseq import layer_rules
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.sizes import USUAL, write_sizes
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["BioGptFamily"]


class BioGptFamily(FamilySpec):
    """BioGPT: learned positions with two unused rows, embeddings multiplied by √d_model, biases everywhere."""

    name: Literal["biogpt"] = "biogpt"
    model_type: ClassVar[str] = "biogpt"
    architecture: ClassVar[str] = "BioGptForCausalLM"
    rank: ClassVar[int] = 11
    prefix: ClassVar[str] = "biogpt."
    # transformers' layer norms have torch's epsilon, whatever `layer_norm_eps` is.
    harmless: ClassVar[frozenset[str]] = keys(
        "activation_dropout attention_probs_dropout_prob hidden_dropout_prob layer_norm_eps layerdrop"
    )
    sizes: ClassVar[Mapping[str, int]] = {"max_position_embeddings": 1024, "vocab_size": 42384}
    """Defaults in which families differ."""
    width: ClassVar[str] = "intermediate_size"
    """Key of the feed-forward's width."""
    activation: ClassVar[str] = "hidden_act"
    """Key of the activation."""
    output: ClassVar[str] = "output_projection"
    """Name of the head."""

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        n_heads = config.integer("num_attention_heads", 16)
        activation = read_activation(config, self.activation, "gelu")
        return {
            "context_length": config.integer("max_position_embeddings", self.sizes["max_position_embeddings"]),
            "d_model": config.integer("hidden_size", 1024),
            "n_layers": config.layers("num_hidden_layers", 24),
            "vocab_size": config.integer("vocab_size", self.sizes["vocab_size"]),
            "embedding": {"name": "token", "scale": "sqrt" if config.flag("scale_embedding", True) else None},
            "position": self.read_position(config),
            "attention": {"name": "multi-head", "n_heads": n_heads, "qkv_bias": True, "output_bias": True},
            "norm": "layer",
            "feedforward": {"name": "mlp", "d_hidden": config.integer(self.width, 4096), "activation": activation},
            "block": "pre-norm",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the position."""
        return {"name": "learned", "offset": 2}

    def config(self, model: Any) -> dict[str, Any]:
        return {
            **write_sizes(model, USUAL),
            "scale_embedding": model.embedding.scale is not None,
            self.width: model.feedforward.d_hidden,
            self.activation: write_activation(model.feedforward.activation),
        }

    def rules(self, model: Any) -> list[Rule]:
        return [
            Rule("embedding.table", f"{self.prefix}embed_tokens"),
            Rule("embedding.position.table", f"{self.prefix}embed_positions"),
            *layer_rules(f"{self.prefix}layers.*"),
            Rule("final_norm", f"{self.prefix}layer_norm"),
            Rule("head", self.output),
        ]
