"""Mamba."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.activations import write_activation
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.mamba.mamba1 import INERT, read_selective, selective_rules
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["MambaFamily"]

NAMES = {"d_state": "state_size", "step_rank": "time_step_rank", "conv_width": "conv_kernel"}
NAMES |= {"conv_bias": "use_conv_bias", "bias": "use_bias", "activation": "hidden_act"}


class MambaFamily(FamilySpec):
    """Mamba: layers of a selective recurrence alone, without attention and feed-forward."""

    name: Literal["mamba"] = "mamba"
    model_type: ClassVar[str] = "mamba"
    architecture: ClassVar[str] = "MambaForCausalLM"
    prefix: ClassVar[str] = "backbone."
    prefixes: ClassVar[Mapping[str, str]] = {"backbone.embedding.": "backbone.embeddings."}
    harmless: ClassVar[frozenset[str]] = INERT | keys(
        "d_inner d_model fused_add_norm layer_types n_layer pad_vocab_size_multiple rescale_prenorm_residual "
        "residual_in_fp32 rms_norm ssm_cfg time_step_floor time_step_init_scheme time_step_max time_step_min time_step_scale"
    )
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"state_size": 6, "time_step_rank": 5},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        d_model, expand = config.integer("hidden_size", 768), config.integer("expand", 2)
        d_inner = config.integer("intermediate_size", expand * d_model)
        return {
            # A recurrence has no limit, and the configuration no such key; exports have it where it differs.
            "context_length": config.integer("max_position_embeddings", 8192),
            "d_model": d_model,
            "n_layers": config.layers("num_hidden_layers", 32),
            "vocab_size": config.integer("vocab_size", 50280),
            "position": "none",
            "attention": read_selective(config, NAMES, d_model, d_inner, self.read_norm(config)),
            "norm": {"name": "rms", "eps": config.number("layer_norm_epsilon", 1e-5)},
            "block": "single-branch",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def read_norm(self, config: ExternalConfig) -> Any:
        """Return the norm of step sizes, keys and queries."""
        return "none"

    def config(self, model: Any) -> dict[str, Any]:
        layer = model.layer_specs()[0]
        return {
            "max_position_embeddings": model.context_length,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            **{key: getattr(layer.attention, own) for own, key in NAMES.items() if own != "activation"},
            "hidden_act": write_activation(layer.attention.activation),
            "expand": max(1, layer.attention.d_inner // model.d_model),
            "intermediate_size": layer.attention.d_inner,
            "layer_norm_epsilon": layer.norm.eps,
            "tie_word_embeddings": model.head.tied,
        }

    def rules(self, model: Any) -> list[Rule]:
        names = {"blocks.*.attention_norm": "layers.*.norm", "embedding.table": "embeddings", "final_norm": "norm_f"}
        others = [Rule(own, f"backbone.{name}") for own, name in names.items()]
        return [*selective_rules(model, "backbone.layers.{}.mixer"), *others, Rule("head", "lm_head")]
