"""GPT, the first one."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.gpt2 import GPT2Family
from gptkit.interop.families.parts.sizes import GPT2, write_sizes
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["OpenAIGPTFamily"]

ACTIVATIONS = {"gelu": "gelu-tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
"""Activations by the names of this family, which calls the approximation `gelu`."""


class OpenAIGPTFamily(FamilySpec):
    """GPT (2018): GPT-2 with norms after the sums, and none after the last layer."""

    name: Literal["openai-gpt"] = "openai-gpt"
    model_type: ClassVar[str] = "openai-gpt"
    architecture: ClassVar[str] = "OpenAIGPTLMHeadModel"
    prefix: ClassVar[str] = "transformer."
    harmless: ClassVar[frozenset[str]] = GPT2Family.harmless
    ignored: ClassVar[tuple[str, ...]] = (r".*\.attn\.bias", r"transformer\.position_ids")

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        d_model, n_heads = config.integer("n_embd", 768), config.integer("n_head", 12)
        activation = config.text("afn", "gelu")
        if activation not in ACTIVATIONS:
            config.refuse("afn", f"transformers supports only {', '.join(ACTIVATIONS)} in this family")
        return {
            "context_length": config.integer("n_positions", 512),
            "d_model": d_model,
            "n_layers": config.layers("n_layer", 12),
            "vocab_size": config.integer("vocab_size", 40478),
            "position": "learned",
            "attention": {"name": "multi-head", "n_heads": n_heads, "qkv_bias": True, "output_bias": True},
            "norm": {"name": "layer", "eps": config.number("layer_norm_epsilon", 1e-5)},
            "feedforward": {"name": "mlp", "d_hidden": 4 * d_model, "activation": ACTIVATIONS[activation]},
            "block": "post-norm",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        names = {native: external for external, native in reversed(ACTIVATIONS.items())}
        return {
            **write_sizes(model, GPT2),
            "layer_norm_epsilon": model.norm.eps,
            "afn": names[model.feedforward.activation.name],
        }

    def rules(self, model: Any) -> list[Rule]:
        tables = [
            Rule("embedding.table", "transformer.tokens_embed"),
            Rule("embedding.position.table", "transformer.positions_embed"),
        ]
        return [*tables, *GPT2Family(name="gpt2").rules(model)]
