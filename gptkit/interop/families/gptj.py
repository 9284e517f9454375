"""GPT-J."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.gpt2 import GPT2Family
from gptkit.interop.layouts import HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GPTJFamily"]


class GPTJFamily(GPT2Family):
    """GPT-J: parallel branches with one norm, rotary on neighboring features of a part of each head, a head with bias."""

    name: Literal["gptj"] = "gptj"  # type: ignore[assignment]
    model_type: ClassVar[str] = "gptj"
    architecture: ClassVar[str] = "GPTJForCausalLM"
    rank: ClassVar[int] = 10
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"rotary_dim": 8},)
    harmless: ClassVar[frozenset[str]] = GPT2Family.harmless | {"rotary", "gradient_checkpointing"}

    sizes: ClassVar[tuple[int, ...]] = (2048, 4096, 28, 50400, 16)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("scale_attn_weights", True, why="transformers always scales scores in this family")
        config.only("scale_attn_by_inverse_layer_idx", False, why="transformers ignores it in this family")
        result = super().model(config)
        d_head = result["d_model"] // max(1, result["attention"]["n_heads"])
        fraction = config.integer("rotary_dim", 64) / d_head
        return {
            **result,
            "position": {"name": "rotary", "layout": "interleaved", "fraction": fraction},
            "attention": {"name": "multi-head", "n_heads": result["attention"]["n_heads"]},
            "block": "parallel",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", False), "bias": True},
        }

    def config(self, model: Any) -> dict[str, Any]:
        d_head = model.attention.d_head
        return {**super().config(model), "rotary_dim": round(model.position.fraction * d_head)}

    def rules(self, model: Any) -> list[Rule]:
        layer = "transformer.h.*"
        return [
            Rule("embedding.table", "transformer.wte"),
            Rule("blocks.*.attention_norm", f"{layer}.ln_1"),
            Rule("blocks.*.attention.qkv", f"{layer}.attn.{{q,k,v}}_proj", HEADS),
            Rule("blocks.*.attention.output", f"{layer}.attn.out_proj"),
            Rule("blocks.*.feedforward.up", f"{layer}.mlp.fc_in"),
            Rule("blocks.*.feedforward.down", f"{layer}.mlp.fc_out"),
            Rule("final_norm", "transformer.ln_f"),
            Rule("head", "lm_head"),
        ]
