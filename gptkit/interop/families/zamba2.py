"""Zamba2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.layers import pattern
from gptkit.interop.families.parts.mamba.mamba2 import TENSORS
from gptkit.interop.families.parts.zamba import layers, tensors, zamba2
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["Zamba2Family"]

BRANCH = "shared_transformer"


class Zamba2Family(FamilySpec):
    """Zamba2: Mamba-2 layers, some after attention and a feed-forward that they share, with adapters for each."""

    name: Literal["zamba2"] = "zamba2"
    model_type: ClassVar[str] = "zamba2"
    architecture: ClassVar[str] = "Zamba2ForCausalLM"
    harmless: ClassVar[frozenset[str]] = keys(
        "attention_hidden_size chunk_size hybrid_layer_ids kv_channels mamba_headdim num_logits_to_keep "
        "num_query_groups time_step_floor time_step_max use_conv_bias use_mamba_kernels use_mem_eff_path"
    )
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (zamba2.TINY,)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("tie_word_embeddings", True, why="transformers shares no branches between layers without a tied head")
        config.only("use_shared_mlp_adapter", True, why="transformers always has these adapters")
        n_layers = config.layers("num_hidden_layers", 54)
        extended = config.flag("use_long_context", False)
        length = config.integer("max_position_embeddings", 4096)
        return {
            "context_length": 16384 if extended else length,
            "d_model": config.integer("hidden_size", 2560),
            "n_layers": n_layers,
            "vocab_size": config.integer("vocab_size", 32000),
            "position": "none",
            "attention": zamba2.read_mamba(config),
            "norm": {"name": "rms", "eps": config.number("rms_norm_eps", 1e-5)},
            "block": "single-branch",
            "layers": pattern(zamba2.read_layers(config, n_layers)),
            "head": {"name": "linear", "tied": True},
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {
            "max_position_embeddings": model.context_length,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            "rms_norm_eps": model.norm.eps,
            "tie_word_embeddings": True,
            **zamba2.write_mamba(model.attention, model.d_model),
            **zamba2.write_branches(list(layers.branches(model).values())),
            **layers.write_hybrid(model),
        }

    def skipped(self, model: Any) -> Sequence[str]:
        return [*self.ignored, *layers.skipped(model, BRANCH)]

    def rules(self, model: Any) -> list[Rule]:
        feedforward = {"gate_up": ("gate_up_proj", None), "down": ("down_proj", None)}
        return [
            *tensors.shared_rules(model, BRANCH, feedforward),
            *tensors.adapter_rules(model, BRANCH),
            *tensors.layer_rules(model, TENSORS, {}),
        ]
