"""Falcon."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.families._common import keys, read_activation, write_activation
from gptkit.families._rope import read_rope, write_rope
from gptkit.families.layouts import GROUPED
from gptkit.kinds.family import FamilySpec, Rule
from gptkit.kinds.foreign import ForeignConfig

__all__ = ["FalconFamily"]


class FalconFamily(FamilySpec):
    """Falcon 7B (one key and value), 40B (groups, two norms) and RW (ALiBi, one branch after the other)."""

    name: Literal["falcon"] = "falcon"
    model_type: ClassVar[str] = "falcon"
    architecture: ClassVar[str] = "FalconForCausalLM"
    prefix: ClassVar[str] = "transformer."
    harmless: ClassVar[frozenset[str]] = keys("apply_residual_connection_post_layernorm n_embed")

    def model(self, config: ForeignConfig) -> dict[str, Any]:
        d_model, n_heads = config.integer("hidden_size"), config.integer("num_attention_heads")
        new, bias = config.flag("new_decoder_architecture", False), config.flag("bias", False)
        shared, parallel = config.flag("multi_query", True), config.flag("parallel_attn", True) or new
        norms = config.integer("num_ln_in_parallel_attn", 2 if new else 1)
        n_kv_heads = config.integer("num_kv_heads", n_heads)
        alibi = {"name": "alibi", "rounded": True, "scaled": True}
        rotary = read_rope(config)
        activation = read_activation(config, "activation", "gelu")
        d_hidden = config.integer("ffn_hidden_size", 4 * d_model)
        return {
            "context_length": config.integer("max_position_embeddings", 2048),
            "d_model": d_model,
            "n_layers": config.integer("num_hidden_layers"),
            "vocab_size": config.integer("vocab_size"),
            "position": alibi if config.flag("alibi", False) else rotary,
            "attention": {
                "name": "grouped-query",
                "n_heads": n_heads,
                "n_kv_heads": n_kv_heads if new else 1 if shared else n_heads,
                "qkv_bias": bias,
                "output_bias": bias,
            },
            "norm": {"name": "layer", "eps": config.number("layer_norm_epsilon", 1e-5)},
            "feedforward": {"name": "mlp", "d_hidden": d_hidden, "activation": activation, "bias": bias},
            "block": {"name": "parallel", "norms": norms if new else 1} if parallel else "pre-norm",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        layer = model.layer_specs()[0]
        rotary, parallel = layer.position.name == "rotary", layer.block.name == "parallel"
        n_heads, n_kv_heads = layer.attention.n_heads, layer.attention.kv_heads
        norms = layer.block.norms if parallel else None
        new = parallel and (norms == 2 or n_kv_heads not in (1, n_heads))
        return {
            "max_position_embeddings": model.context_length,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            "num_attention_heads": n_heads,
            "num_kv_heads": n_kv_heads,
            "multi_query": n_kv_heads == 1,
            "new_decoder_architecture": new,
            "parallel_attn": parallel,
            "num_ln_in_parallel_attn": norms,
            "alibi": not rotary,
            "bias": layer.feedforward.bias,
            "layer_norm_epsilon": layer.norm.eps,
            **(write_rope(layer.position) if rotary else {}),
            "ffn_hidden_size": layer.feedforward.d_hidden,
            "activation": write_activation(layer.feedforward.activation),
            "tie_word_embeddings": model.head.tied,
        }

    def rules(self, model: Any) -> list[Rule]:
        layer, block = "transformer.h.*", model.layer_specs()[0].block.model_dump()
        first, second = ("ln_attn", "ln_mlp") if block.get("norms") == 2 else ("input_layernorm", "post_attention_layernorm")
        names = {"attention_norm": first, "feedforward_norm": second, "attention.output": "self_attention.dense"}
        names |= {"feedforward.up": "mlp.dense_h_to_4h", "feedforward.down": "mlp.dense_4h_to_h"}
        whole = {"embedding.table": "word_embeddings", "final_norm": "ln_f"}
        return [
            Rule("blocks.*.attention.qkv", f"{layer}.self_attention.query_key_value", GROUPED),
            *(Rule(f"blocks.*.{ours}", f"{layer}.{theirs}") for ours, theirs in names.items()),
            *(Rule(ours, f"transformer.{theirs}") for ours, theirs in whole.items()),
            Rule("head", "lm_head"),
        ]
