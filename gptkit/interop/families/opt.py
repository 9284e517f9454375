"""OPT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.fairseq import layer_rules
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.sizes import USUAL, write_sizes
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["OPTFamily"]


class OPTFamily(FamilySpec):
    """OPT: GPT-2's shape with ReLU and learned positions that begin at 2; the 350m has norms after, and a narrow table."""

    name: Literal["opt"] = "opt"
    model_type: ClassVar[str] = "opt"
    architecture: ClassVar[str] = "OPTForCausalLM"
    harmless: ClassVar[frozenset[str]] = keys("activation_dropout init_std layerdrop output_projection")
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {"learned_embeddings": (True,), "scale_embeddings": (False,)}

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        d_model, length = config.integer("hidden_size", 768), config.integer("max_position_embeddings", 2048)
        before, bare = config.flag("do_layer_norm_before", True), config.flag("_remove_final_layer_norm", False)
        bias, affine = config.flag("enable_bias", True), config.flag("layer_norm_elementwise_affine", True)
        norm = {"name": "layer", "scale": affine, "shift": affine}
        n_heads, d_hidden = config.integer("num_attention_heads", 12), config.integer("ffn_dim", 3072)
        activation = read_activation(config, "activation_function", "relu")
        d_embedding, tied = config.integer("word_embed_proj_dim", d_model), config.flag("tie_word_embeddings", True)
        if d_embedding != d_model and not tied:
            config.refuse("word_embed_proj_dim", "a head of its own has the model's width here; it requires a tied head")
        return {
            "context_length": length,
            "d_model": d_model,
            "n_layers": config.layers("num_hidden_layers", 12),
            "vocab_size": config.integer("vocab_size", 50272),
            "embedding": {"name": "token", "d_embedding": d_embedding},
            "position": {"name": "learned", "size": length, "offset": 2},
            "attention": {"name": "multi-head", "n_heads": n_heads, "qkv_bias": bias, "output_bias": bias},
            "norm": norm,
            "feedforward": {"name": "mlp", "d_hidden": d_hidden, "activation": activation, "bias": bias},
            "block": "pre-norm" if before else "post-norm",
            "final_norm": None if bare or not before else norm,
            "head": {"name": "linear", "tied": tied},
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {
            **write_sizes(model, USUAL),
            "word_embed_proj_dim": model.embedding.d_embedding,
            "enable_bias": model.feedforward.bias,
            "layer_norm_elementwise_affine": model.norm.scale,
            "ffn_dim": model.feedforward.d_hidden,
            "activation_function": write_activation(model.feedforward.activation),
            "do_layer_norm_before": model.block.name == "pre-norm",
            "_remove_final_layer_norm": model.block.name == "pre-norm" and model.final_norm is None,
        }

    def rules(self, model: Any) -> list[Rule]:
        return [
            Rule("embedding.table", "model.decoder.embed_tokens"),
            Rule("embedding.project", "model.decoder.project_in"),
            Rule("embedding.position.table", "model.decoder.embed_positions"),
            *layer_rules("model.decoder.layers.*"),
            Rule("final_norm", "model.decoder.final_layer_norm"),
            Rule("head.project", "model.decoder.project_out"),
            Rule("head", "lm_head"),
        ]
