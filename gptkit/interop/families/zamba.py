"""Zamba."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.mamba.mamba1 import INERT
from gptkit.interop.families.parts.zamba import branch, layers, recurrence, tensors, zamba
from gptkit.interop.layouts import HALVES
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["ZambaFamily"]

BRANCH = "shared_transf"


class ZambaFamily(FamilySpec):
    """Zamba: Mamba layers of several heads, some after attention and a feed-forward that all of these share."""

    name: Literal["zamba"] = "zamba"
    model_type: ClassVar[str] = "zamba"
    architecture: ClassVar[str] = "ZambaForCausalLM"
    harmless: ClassVar[frozenset[str]] = INERT | keys(
        "attn_layer_offset attn_layer_period time_step_floor time_step_max time_step_min"
    )
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (zamba.TINY,)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("tie_word_embeddings", True, why="transformers shares no branch between layers without a tied head")
        n_layers = config.layers("num_hidden_layers", 76)
        return {
            "context_length": config.integer("max_position_embeddings", 4096),
            "d_model": config.integer("hidden_size", recurrence.D_MODEL),
            "n_layers": n_layers,
            "vocab_size": config.integer("vocab_size", 32000),
            "position": "none",
            "attention": recurrence.read_mamba(config),
            "norm": {"name": "rms", "eps": config.number("rms_norm_eps", 1e-5)},
            "block": "single-branch",
            "layers": zamba.read_layers(config, n_layers),
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
            **recurrence.write_mamba(model.attention, model.d_model),
            **branch.write_branch(next(iter(layers.branches(model).values()))),
            **layers.write_hybrid(model),
        }

    def skipped(self, model: Any) -> Sequence[str]:
        return [*self.ignored, *layers.skipped(model, BRANCH)]

    def rules(self, model: Any) -> list[Rule]:
        feedforward = {"gate_up": ("{gate,up}_proj", HALVES), "down": ("down_proj", None)}
        return [
            *tensors.shared_rules(model, BRANCH, feedforward),
            *tensors.layer_rules(model, recurrence.TENSORS, recurrence.layouts(model)),
        ]
