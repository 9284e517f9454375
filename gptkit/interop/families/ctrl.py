"""CTRL."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.gpt2 import GPT2Family
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.sizes import GPT2, write_sizes
from gptkit.interop.layouts import HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["CTRLFamily"]


class CTRLFamily(FamilySpec):
    """CTRL: sinusoidal positions, embeddings multiplied by √d_model, ReLU, a tied head with a bias."""

    name: Literal["ctrl"] = "ctrl"
    model_type: ClassVar[str] = "ctrl"
    architecture: ClassVar[str] = "CTRLLMHeadModel"
    prefix: ClassVar[str] = "transformer."
    harmless: ClassVar[frozenset[str]] = GPT2Family.harmless | keys("from_tf")
    ignored: ClassVar[tuple[str, ...]] = (r"transformer\.pos_encoding",)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        return {
            "context_length": config.integer("n_positions", 256),
            "d_model": config.integer("n_embd", 1280),
            "n_layers": config.layers("n_layer", 48),
            "vocab_size": config.integer("vocab_size", 246534),
            "embedding": {"name": "token", "scale": "sqrt"},
            "position": {"name": "sinusoidal", "layout": "half"},
            "attention": {
                "name": "multi-head",
                "n_heads": config.integer("n_head", 16),
                "qkv_bias": True,
                "output_bias": True,
            },
            # The norms of the layers have this epsilon whatever the configuration says; the last one has its own.
            "norm": {"name": "layer", "eps": 1e-6},
            "feedforward": {"name": "mlp", "d_hidden": config.integer("dff", 8192), "activation": "relu"},
            "block": "pre-norm",
            "final_norm": {"name": "layer", "eps": config.number("layer_norm_epsilon", 1e-6)},
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True), "bias": True},
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {
            **write_sizes(model, GPT2),
            "dff": model.feedforward.d_hidden,
            "layer_norm_epsilon": model.final_norm.eps,
        }

    def rules(self, model: Any) -> list[Rule]:
        layer = "transformer.h.*"
        return [
            Rule("embedding.table", "transformer.w"),
            Rule("blocks.*.attention_norm", f"{layer}.layernorm1"),
            Rule("blocks.*.attention.qkv", f"{layer}.multi_head_attention.{{Wq,Wk,Wv}}", HEADS),
            Rule("blocks.*.attention.output", f"{layer}.multi_head_attention.dense"),
            Rule("blocks.*.feedforward_norm", f"{layer}.layernorm2"),
            Rule("blocks.*.feedforward.up", f"{layer}.ffn.0"),
            Rule("blocks.*.feedforward.down", f"{layer}.ffn.2"),
            Rule("final_norm", "transformer.layernorm"),
            Rule("head", "lm_head"),
        ]
