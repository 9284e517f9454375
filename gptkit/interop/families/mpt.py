"""MPT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import HARMLESS, ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["MptFamily"]


class MptFamily(FamilySpec):
    """MPT: ALiBi with an order of slopes of its own, no biases at all."""

    name: Literal["mpt"] = "mpt"
    model_type: ClassVar[str] = "mpt"
    architecture: ClassVar[str] = "MptForCausalLM"
    prefix: ClassVar[str] = "transformer."
    harmless: ClassVar[frozenset[str]] = keys(
        "init_device embedding_fraction norm_type learned_pos_emb emb_pdrop init_config tokenizer_name verbose"
    )
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {"fc_type": ("torch",), "ffn_config": ({"ffn_type": "mptmlp"},)}

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        attention = config.section("attn_config", HARMLESS | keys("attn_impl attn_uses_sequence_id"))
        attention.only("attn_type", "multihead_attention", why="transformers reads it so, whatever it says")
        for key in ("prefix_lm", "qk_ln"):
            attention.only(key, False, why="transformers has nothing of the kind")
        attention.only("alibi_bias_max", 8, why="transformers has 8, whatever it says")
        attention.only("alibi", True, why="transformers has no such models without ALiBi")
        config.only("no_bias", True, why="transformers has no such models with biases")
        config.only("expansion_ratio", 4, why="transformers always uses 4")
        config.only("logit_scale", why="transformers does not scale logits")
        eps = config.number("layer_norm_epsilon", 1e-5)
        return {
            "context_length": config.integer("max_seq_len", 2048),
            "d_model": config.integer("d_model", 2048),
            "n_layers": config.layers("n_layers", 24),
            "vocab_size": config.integer("vocab_size", 50368),
            "position": {"name": "alibi", "slope_order": "strided"},
            "attention": {
                "name": "multi-head",
                "n_heads": config.integer("n_heads", 16),
                "clip_qkv": attention.maybe("clip_qkv"),
                "scale": attention.maybe("softmax_scale"),
            },
            "norm": {"name": "layer", "eps": eps, "shift": False},
            "feedforward": {"name": "mlp", "expansion": 4, "bias": False},
            "block": "pre-norm",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        attention = {"clip_qkv": model.attention.clip_qkv, "softmax_scale": model.attention.scale}
        return {
            "max_seq_len": model.context_length,
            "d_model": model.d_model,
            "n_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            "n_heads": model.attention.n_heads,
            "attn_config": attention,
            "layer_norm_epsilon": model.norm.eps,
            "tie_word_embeddings": model.head.tied,
        }

    def rules(self, model: Any) -> list[Rule]:
        return [
            Rule("embedding.table", "transformer.wte"),
            Rule("blocks.*.attention_norm", "transformer.blocks.*.norm_1"),
            Rule("blocks.*.attention.qkv", "transformer.blocks.*.attn.Wqkv"),
            Rule("blocks.*.attention.output", "transformer.blocks.*.attn.out_proj"),
            Rule("blocks.*.feedforward_norm", "transformer.blocks.*.norm_2"),
            Rule("blocks.*.feedforward.up", "transformer.blocks.*.ffn.up_proj"),
            Rule("blocks.*.feedforward.down", "transformer.blocks.*.ffn.down_proj"),
            Rule("final_norm", "transformer.norm_f"),
            Rule("head", "lm_head"),
        ]
