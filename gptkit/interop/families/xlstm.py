"""xLSTM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts import xlstm as parts
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["XLstmFamily"]

ONLY = {
    "use_bias": (False, "gptkit has no such biases in this family"),
    "add_out_norm": (True, "transformers always has the norm"),
    "add_post_blocks_norm": (True, "transformers always has the norm"),
    "add_post_norm": (False, "transformers has no norm after a branch in this family"),
    "add_qk_norm": (False, "transformers has no norm of queries and keys in this family"),
    "weight_mode": ("single", "gptkit reads projections that are stored separately"),
    "tie_word_embeddings": (False, "transformers does not tie them in this family"),
}


class XLstmFamily(FamilySpec):
    """xLSTM (7B): mLSTM in place of attention in every layer, gated feed-forwards, a soft bound of the logits."""

    name: Literal["xlstm"] = "xlstm"
    model_type: ClassVar[str] = "xlstm"
    architecture: ClassVar[str] = "xLSTMForCausalLM"
    prefix: ClassVar[str] = "backbone."
    harmless: ClassVar[frozenset[str]] = parts.INERT
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"num_heads": 4, "chunk_size": 16},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        for key, (value, why) in ONLY.items():
            config.only(key, value, why=why)
        config.agree("norm_eps", "cell_norm_eps")
        d_model = config.integer(config.alias("hidden_size", "embedding_dim"), 4096)
        return {
            # A recurrence has no limit, and the configuration no such key; exports have it where it differs.
            "context_length": config.integer("max_position_embeddings", 8192),
            "d_model": d_model,
            "n_layers": config.layers(config.alias("num_hidden_layers", "num_blocks"), 32),
            "vocab_size": config.integer("vocab_size", 50304),
            "position": "none",
            "attention": parts.read_mlstm(config, d_model),
            "norm": {"name": "rms", "eps": config.number("norm_eps", 1e-6)},
            "feedforward": {"name": "gated", "d_hidden": parts.read_width(config, d_model)},
            "head": {"name": "linear", "softcap": config.number("output_logit_soft_cap", 30.0)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {
            "max_position_embeddings": model.context_length,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            **parts.write_layer(model.layer_specs()[0], model.d_model),
            "output_logit_soft_cap": model.head.softcap,
        }

    def rules(self, model: Any) -> list[Rule]:
        return [
            *parts.rules(),
            Rule("embedding.table", "backbone.embeddings"),
            Rule("final_norm", "backbone.out_norm"),
            Rule("head", "lm_head"),
        ]
