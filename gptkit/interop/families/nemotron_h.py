"""Nemotron-H and Nemotron 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import INERT
from gptkit.interop.families.parts.layers import pattern
from gptkit.interop.families.parts.mamba.mamba2 import mamba_rules
from gptkit.interop.families.parts.nemotron_h.feedforwards import FEED, read_dense, read_experts, write_feedforwards
from gptkit.interop.families.parts.nemotron_h.layers import BLOCKS, HARMLESS, TINY, of_type, read_types, type_of
from gptkit.interop.families.parts.nemotron_h.mamba import SYNONYMS, read_mamba, write_mamba
from gptkit.interop.layouts import HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["NemotronHFamily"]


class NemotronHFamily(Decoder):
    """Nemotron-H and Nemotron 3: layers of one branch, Mamba-2, attention without positions, feed-forward or experts."""

    name: Literal["nemotron-h"] = "nemotron-h"
    model_type: ClassVar[str] = "nemotron_h"
    architecture: ClassVar[str] = "NemotronHForCausalLM"
    prefix: ClassVar[str] = "backbone."
    prefixes: ClassVar[Mapping[str, str]] = {"model.": "backbone."}
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"mtp\..*")
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | HARMLESS
    synonyms: ClassVar[Mapping[str, str]] = SYNONYMS
    eps: ClassVar[tuple[str, float]] = ("layer_norm_epsilon", 1e-5)
    d_head: ClassVar[int | None] = 128
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (TINY,)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("tie_word_embeddings", False, why="transformers does not tie them in this family")
        (attention, feed), types = BLOCKS, read_types(config)
        mamba, dense = read_mamba(config), read_dense(config)
        sparse = read_experts(config, dense, "moe" in types)
        entries = {"linear_attention": {"attention": mamba, **attention}, "full_attention": attention}
        entries |= {"mlp": {"feedforward": dense, **feed}, "moe": feed}
        return {
            "context_length": config.integer("max_position_embeddings", 4096),
            "d_model": config.integer("hidden_size"),
            "n_layers": len(types),
            "vocab_size": config.integer("vocab_size"),
            "position": "none",
            "attention": {**self.read_attention(config), "qkv_bias": False, "output_bias": False},
            "norm": self.read_norm(config),
            "feedforward": sparse,
            "layers": pattern([entries[each] for each in types]),
            "head": {"name": "linear", "tied": False},
        }

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        types = {"layers_block_type": [type_of(layer) for layer in layers]}
        return {**super().config(model), **types, **write_mamba(layers)}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return super().write_attention(of_type(layers, "full_attention") or of_type(layers, "mlp", "moe")[-1:])

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return write_feedforwards(layers)

    def rules(self, model: Any) -> list[Rule]:
        layer = "backbone.layers.*"
        return [
            *mamba_rules(model, "backbone.layers.{}.mixer"),
            Rule("blocks.*.attention.qkv", f"{layer}.mixer.{{q,k,v}}_proj", HEADS),
            Rule("blocks.*.attention.output", f"{layer}.mixer.o_proj"),
            *(Rule(f"blocks.*.feedforward.{own}", f"{layer}.mixer.{name}") for own, name in FEED.items()),
            Rule("blocks.*.attention_norm", f"{layer}.norm"),
            Rule("blocks.*.feedforward_norm", f"{layer}.norm"),
            Rule("embedding.table", "backbone.embeddings"),
            Rule("final_norm", "backbone.norm_f"),
            Rule("head", "lm_head"),
        ]
