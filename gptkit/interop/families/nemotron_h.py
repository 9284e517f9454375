"""Nemotron-H and Nemotron 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families import _nemotron
from gptkit.interop.families._common import pattern
from gptkit.interop.families._experts import INERT
from gptkit.interop.families._mamba import mamba_rules
from gptkit.interop.families.decoder import Decoder
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
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | _nemotron.HARMLESS
    eps: ClassVar[tuple[str, float]] = ("layer_norm_epsilon", 1e-5)
    d_head: ClassVar[int | None] = 128
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (_nemotron.TINY,)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("tie_word_embeddings", False, why="transformers does not tie them in this family")
        types = _nemotron.read_types(config)
        mamba, dense = _nemotron.read_mamba(config), _nemotron.read_dense(config)
        sparse = _nemotron.read_experts(config, dense, "moe" in types)
        attention, feed = _nemotron.BLOCKS
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
        return {**super().config(model), **_nemotron.write(model)}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return super().write_attention(_nemotron.of_type(layers, "full_attention") or layers[-1:])

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {}

    def rules(self, model: Any) -> list[Rule]:
        layer = "backbone.layers.*"
        return [
            *mamba_rules(model, "backbone.layers.{}.mixer"),
            Rule("blocks.*.attention.qkv", f"{layer}.mixer.{{q,k,v}}_proj", HEADS),
            Rule("blocks.*.attention.output", f"{layer}.mixer.o_proj"),
            *(Rule(f"blocks.*.feedforward.{own}", f"{layer}.mixer.{name}") for own, name in _nemotron.FEED.items()),
            Rule("blocks.*.attention_norm", f"{layer}.norm"),
            Rule("blocks.*.feedforward_norm", f"{layer}.norm"),
            Rule("embedding.table", "backbone.embeddings"),
            Rule("final_norm", "backbone.norm_f"),
            Rule("head", "lm_head"),
        ]
