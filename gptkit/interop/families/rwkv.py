"""RWKV-4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts import rwkv as parts
from gptkit.interop.families.parts.layers import pattern
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["RwkvFamily"]


class RwkvFamily(FamilySpec):
    """RWKV-4: time mixing in place of attention, channel mixing in place of the feed-forward, in every layer."""

    name: Literal["rwkv"] = "rwkv"
    model_type: ClassVar[str] = "rwkv"
    architecture: ClassVar[str] = "RwkvForCausalLM"
    prefix: ClassVar[str] = "rwkv."
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"rescale_every": 1},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        d_model, n_layers = config.integer("hidden_size", 4096), config.layers("num_hidden_layers", 32)
        *norms, final = parts.read_norms(config, n_layers)
        width = config.integer("intermediate_size", 4 * d_model)
        return {
            "context_length": config.integer(config.alias("context_length", "max_position_embeddings"), 1024),
            "d_model": d_model,
            "n_layers": n_layers,
            "vocab_size": config.integer("vocab_size", 50277),
            "embedding": {"name": "token", "norm": norms[0]},
            "position": "none",
            "attention": {"name": "rwkv4", "d_inner": config.integer("attention_hidden_size", d_model)},
            "norm": norms[0],
            "feedforward": {"name": "mlp", "activation": "relu-squared", "bias": False, "d_hidden": width},
            "block": "channel-mixing",
            "layers": pattern([{} if norm == norms[0] else {"norm": norm} for norm in norms]),
            "final_norm": final,
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", False)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        return {
            "context_length": model.context_length,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            "attention_hidden_size": layers[0].attention.d_inner,
            "intermediate_size": layers[0].feedforward.d_hidden,
            **parts.write_norms(layers, model.final_norm),
            "tie_word_embeddings": model.head.tied,
        }

    def factors(self, model: Any) -> Mapping[str, float]:
        return parts.factors(model.layer_specs())

    def rules(self, model: Any) -> list[Rule]:
        return [
            *parts.rules(),
            Rule("embedding.table", "rwkv.embeddings"),
            Rule("embedding.norm", "rwkv.blocks.0.pre_ln"),
            Rule("final_norm", "rwkv.ln_out"),
            Rule("head", "head"),
        ]
