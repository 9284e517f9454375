"""Mamba-2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.mamba.limits import read_limits, write_limits
from gptkit.interop.families.parts.mamba.mamba2 import mamba_rules
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["Mamba2Family"]

SIZES = {"n_heads": ("num_heads", 128), "d_head": ("head_dim", 64), "n_groups": ("n_groups", 8)}
SIZES |= {"d_state": ("state_size", 128), "conv_width": ("conv_kernel", 4)}
FLAGS = {"conv_bias": ("use_conv_bias", True), "bias": ("use_bias", False)}


class Mamba2Family(FamilySpec):
    """Mamba-2: layers of a recurrence alone, without attention and feed-forward."""

    name: Literal["mamba2"] = "mamba2"
    model_type: ClassVar[str] = "mamba2"
    architecture: ClassVar[str] = "Mamba2ForCausalLM"
    prefix: ClassVar[str] = "backbone."
    prefixes: ClassVar[Mapping[str, str]] = {"backbone.embedding.": "backbone.embeddings."}
    harmless: ClassVar[frozenset[str]] = keys(
        "chunk_size layer_types norm_before_gate rescale_prenorm_residual residual_in_fp32 rms_norm time_step_floor "
        "time_step_init_scheme time_step_max time_step_min time_step_rank time_step_scale use_mambapy"
    )
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"num_heads": 8, "head_dim": 16, "n_groups": 2, "state_size": 6},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        d_model, eps = config.integer("hidden_size", 4096), config.number("layer_norm_epsilon", 1e-5)
        mamba: dict[str, Any] = {"name": "mamba2", "eps": eps}
        mamba |= {own: config.integer(*key) for own, key in SIZES.items()}
        mamba |= {own: config.flag(*key) for own, key in FLAGS.items()}
        if mamba["n_heads"] * mamba["d_head"] != config.integer("expand", 2) * d_model:
            config.refuse("num_heads", "the heads should have expand · hidden_size features")
        return {
            # A recurrence has no limit, and the configuration no such key; exports have it where it differs.
            "context_length": config.integer("max_position_embeddings", 8192),
            "d_model": d_model,
            "n_layers": config.layers("num_hidden_layers", 64),
            "vocab_size": config.integer("vocab_size", 32768),
            "position": "none",
            "attention": {**mamba, **read_limits(config), "activation": read_activation(config, "hidden_act", "silu")},
            "norm": {"name": "rms", "eps": eps},
            "block": "single-branch",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", False)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        mamba = model.layer_specs()[0].attention
        return {
            "max_position_embeddings": model.context_length,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            **{key: getattr(mamba, own) for own, (key, _) in (SIZES | FLAGS).items()},
            "expand": mamba.n_heads * mamba.d_head // model.d_model,
            "hidden_act": write_activation(mamba.activation),
            "layer_norm_epsilon": mamba.eps,
            "tie_word_embeddings": model.head.tied,
            **write_limits(mamba),
        }

    def rules(self, model: Any) -> list[Rule]:
        names = {"blocks.*.attention_norm": "layers.*.norm", "embedding.table": "embeddings", "final_norm": "norm_f"}
        others = [Rule(own, f"backbone.{name}") for own, name in names.items()]
        return [*mamba_rules(model, "backbone.layers.{}.mixer"), *others, Rule("head", "lm_head")]
