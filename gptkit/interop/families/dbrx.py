"""DBRX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts import experts as moe
from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.rope import read_rope, write_rope
from gptkit.interop.layouts import HALVES, TRANSPOSED
from gptkit.kinds.external_config import HARMLESS, ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["DbrxFamily"]
NORMALIZE = "moe_normalize_expert_weights"
TRAINED = HARMLESS | {"moe_jitter_eps", "moe_loss_weight", "hidden_size"}
"""Keys of experts that matter in training only, and the width, which transformers replaces by the model's."""


class DbrxFamily(FamilySpec):
    """DBRX: layer norms without biases, bounded queries, keys and values, experts."""

    name: Literal["dbrx"] = "dbrx"
    model_type: ClassVar[str] = "dbrx"
    architecture: ClassVar[str] = "DbrxForCausalLM"
    prefix: ClassVar[str] = "transformer."
    harmless: ClassVar[frozenset[str]] = moe.INERT | {"emb_pdrop", "num_key_value_heads", "resid_pdrop"}
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"attn_config": {"clip_qkv": 0.5, "rope_theta": 1e4}},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.use_names({"max_position_embeddings": "max_seq_len"})
        attention = config.section("attn_config", HARMLESS | {"attn_pdrop"})
        ffn = config.section("ffn_config", TRAINED)
        config.only("tie_word_embeddings", False, why="transformers has no such models with tied embeddings")
        # transformers applies the base of rope_parameters; released files have it in attn_config alone.
        outer = config.section("rope_parameters").value("rope_theta")
        base = attention.number("rope_theta", 10000.0 if outer is None else outer)
        if outer is not None and outer != base:
            attention.refuse("rope_theta", f"rope_parameters has {outer}; set both to the one of the model")
        normalizes = NORMALIZE not in ffn.data or ffn.value(NORMALIZE) is not None
        ffn.only(NORMALIZE, 1.0, 1, None, why="weights are divided by their sum here, the norm of order 1")
        router = {"name": "softmax-top-k", "k": ffn.integer("moe_top_k", 1), "renormalize": normalizes}
        activation = read_activation(ffn.section("ffn_act_fn"), "name", "silu")
        expert = {"name": "gated", "d_hidden": ffn.integer("ffn_hidden_size", 3584), "activation": activation}
        heads = {"n_heads": config.integer("n_heads", 16), "n_kv_heads": attention.integer("kv_n_heads", 1)}
        return {
            "context_length": config.integer("max_position_embeddings", 2048),
            "d_model": config.integer("d_model", 2048),
            "n_layers": config.layers("n_layers", 24),
            "vocab_size": config.integer("vocab_size", 32000),
            "position": read_rope(config, base=base, partial=False),
            # transformers computes no model without this bound.
            "attention": {"name": "grouped-query", **heads, "clip_qkv": attention.number("clip_qkv")},
            "norm": {"name": "layer", "shift": False},
            "feedforward": moe.sparse(ffn.integer("moe_num_experts", 4), router, expert),
        }

    def config(self, model: Any) -> dict[str, Any]:
        attention, experts = model.attention, model.feedforward
        sizes = {"max_seq_len": model.context_length, "d_model": model.d_model, "n_layers": model.n_layers}
        own = {"kv_n_heads": attention.kv_heads, "clip_qkv": attention.clip_qkv, "rope_theta": model.position.base}
        ffn = {"ffn_act_fn": {"name": write_activation(experts.expert.activation)}, "moe_num_experts": experts.n_experts}
        ffn |= {"ffn_hidden_size": experts.expert.d_hidden, "moe_top_k": experts.router.k}
        ffn |= {NORMALIZE: 1.0 if experts.router.renormalize else None}
        more = {"vocab_size": model.vocab_size, "n_heads": attention.n_heads, "tie_word_embeddings": False}
        return {**sizes, **more, **write_rope(model.position), "attn_config": own, "ffn_config": ffn}

    def rules(self, model: Any) -> list[Rule]:
        layer, experts = "transformer.blocks.*", "blocks.*.feedforward.experts"
        names = {"attention_norm": "norm_1", "feedforward_norm": "norm_2"}
        names |= {"attention.qkv": "attn.Wqkv", "attention.output": "attn.out_proj"}
        return [
            *(Rule(f"blocks.*.{own}", f"{layer}.norm_attn_norm.{name}") for own, name in names.items()),
            Rule("blocks.*.feedforward.router.scores", f"{layer}.ffn.router.layer"),
            Rule(f"{experts}.gate_up.weight", f"{layer}.ffn.experts.mlp.{{w1,v1}}", moe.Rows(HALVES)),
            Rule(f"{experts}.down.weight", f"{layer}.ffn.experts.mlp.w2", moe.Rows(TRANSPOSED)),
            *(Rule(own, f"transformer.{name}") for own, name in (("embedding.table", "wte"), ("final_norm", "norm_f"))),
            Rule("head", "lm_head"),
        ]
