"""GPT-2."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.gpt2 import read_scales, write_scales
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.layers import pattern
from gptkit.interop.families.parts.sizes import GPT2, write_sizes
from gptkit.interop.layouts import TRANSPOSED
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["GPT2Family"]


class GPT2Family(FamilySpec):
    """GPT-2: learned positions, layer norms, biases everywhere, matrices stored with inputs as rows."""

    name: Literal["gpt2"] = "gpt2"
    model_type: ClassVar[str] = "gpt2"
    model_types: ClassVar[tuple[str, ...]] = ("gpt-sw3",)
    architecture: ClassVar[str] = "GPT2LMHeadModel"
    rank: ClassVar[int] = 1
    prefix: ClassVar[str] = "transformer."
    harmless: ClassVar[frozenset[str]] = keys(
        "n_ctx summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout "
        "reorder_and_upcast_attn n_special predict_special_tokens"
    )
    sizes: ClassVar[tuple[int, ...]] = (1024, 768, 12, 50257, 12)
    """The first sizes of `GPT2` where the configuration has none."""
    ignored: ClassVar[tuple[str, ...]] = (r".*\.attn\.(masked_)?bias",)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        n_positions, d_model, n_layers, vocab_size, n_heads = map(config.integer, GPT2, self.sizes)
        n_layers = config.layers("n_layer", n_layers)
        return {
            "context_length": n_positions,
            "d_model": d_model,
            "n_layers": n_layers,
            "vocab_size": vocab_size,
            "position": "learned",
            "attention": {"name": "multi-head", "n_heads": n_heads, "qkv_bias": True, "output_bias": True},
            "norm": {"name": "layer", "eps": config.number("layer_norm_epsilon", 1e-5)},
            "feedforward": {
                "name": "mlp",
                "d_hidden": config.integer("n_inner", 4 * d_model),
                "activation": read_activation(config, "activation_function", "gelu_new"),
            },
            "block": "pre-norm",
            "layers": pattern(read_scales(config, d_model // max(1, n_heads), n_layers)),
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {
            **write_sizes(model, GPT2),
            **write_scales(model),
            "layer_norm_epsilon": model.norm.eps,
            "n_inner": model.feedforward.d_hidden,
            "activation_function": write_activation(model.feedforward.activation),
        }

    def rules(self, model: Any) -> list[Rule]:
        return [
            Rule("embedding.table", "transformer.wte"),
            Rule("embedding.position.table", "transformer.wpe"),
            Rule("blocks.*.attention_norm", "transformer.h.*.ln_1"),
            Rule("blocks.*.attention.qkv", "transformer.h.*.attn.c_attn", TRANSPOSED),
            Rule("blocks.*.attention.output", "transformer.h.*.attn.c_proj", TRANSPOSED),
            Rule("blocks.*.feedforward_norm", "transformer.h.*.ln_2"),
            Rule("blocks.*.feedforward.up", "transformer.h.*.mlp.c_fc", TRANSPOSED),
            Rule("blocks.*.feedforward.down", "transformer.h.*.mlp.c_proj", TRANSPOSED),
            Rule("final_norm", "transformer.ln_f"),
            Rule("head", "lm_head"),
        ]
