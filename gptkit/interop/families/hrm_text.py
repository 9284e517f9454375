"""HRM-Text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.layouts import GATES_FIRST, HALVES, HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["HrmTextFamily"]

REAL, CYCLES = "num_layers_per_stack", {"high_cycles": ("H_cycles", 2), "low_cycles": ("L_cycles", 3)}


class HrmTextFamily(Decoder):
    """HRM-Text: two stacks of layers in nested cycles, gated attention, norms without weights."""

    name: Literal["hrm-text"] = "hrm-text"
    model_type: ClassVar[str] = "hrm_text"
    architecture: ClassVar[str] = "HrmTextForCausalLM"
    # With token types, transformers lets a prompt attend in both directions: a prefix in gptkit (`prefix_B`).
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | {"prefix_lm"}
    d_head: ClassVar[int | None] = 128
    feedforward_biases: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"num_hidden_layers": 2, "num_key_value_heads": 4, "H_cycles": 2, "L_cycles": 2},
    )

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().model(config), "n_layers": 1}

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "token", "scale": config.number("embedding_scale", 1 / config.number("initializer_range", 0.02))}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "scale": False}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        n_heads = config.integer("num_attention_heads")
        config.only("num_key_value_heads", n_heads, why="transformers has as many keys as queries in this family")
        return {**super().read_attention(config), "output_gate": True}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        cycles = {own: config.integer(*key) for own, key in CYCLES.items()}
        total = config.layers("num_hidden_layers")
        blocks = config.layers(REAL, total) if REAL in config else total
        if REAL in config and total != blocks * cycles["high_cycles"] * (cycles["low_cycles"] + 1):
            config.refuse("num_hidden_layers", f"it should be {REAL} · H_cycles · (L_cycles + 1)")
        return {"name": "hierarchical", "blocks": blocks, **cycles, "gradient_cycles": config.items("L_bp_cycles", [2])}

    def config(self, model: Any) -> dict[str, Any]:
        block = model.layer_specs()[0].block
        return {
            **super().config(model),
            **{key: getattr(block, own) for own, (key, _) in CYCLES.items()},
            "num_hidden_layers": block.blocks * block.high_cycles * (block.low_cycles + 1),
            REAL: block.blocks,
            "L_bp_cycles": list(block.gradient_cycles),
            "embedding_scale": model.embedding.scale,
        }

    def rules(self, model: Any) -> list[Rule]:
        stacks = [
            (f"blocks.*.{own}.{i}", f"model.{name}_module.layers.{i}")
            for own, name in (("low", "L"), ("high", "H"))
            for i in range(model.layer_specs()[0].block.blocks)
        ]
        parts = [
            ("attention.qkv.weight", "attn.gqkv_proj.weight", GATES_FIRST),
            ("attention.qkv.bias", "self_attn.{q,k,v,gate}_proj.bias", HEADS),
            ("attention.output", "attn.o_proj", None),
            ("feedforward.gate_up.weight", "mlp.gate_up_proj.weight", None),
            ("feedforward.gate_up.bias", "mlp.{gate,up}_proj.bias", HALVES),
            ("feedforward.down", "mlp.down_proj", None),
        ]
        inner = [Rule(f"{own}.{a}", f"{name}.{b}", layout) for own, name in stacks for a, b, layout in parts]
        return [Rule("blocks.*.start", "model.z_L_init"), *inner, *super().rules(model)]
