"""RecurrentGemma: how its configurations name the recurrence, and the factor of its embeddings."""

from __future__ import annotations

import struct
from typing import Any

from gptkit.interop.families.parts.hybrids import numbered_rules
from gptkit.interop.layouts import HALVES, HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["in_bf16", "read_recurrence", "read_types", "rules", "write_recurrence"]

TYPES = ["recurrent", "recurrent", "attention"]
"""The default of `block_types`."""

GATES = {"decay_gate": "recurrent_gate", "input_gate": "input_gate"}
TENSORS = {
    "input": "{linear_x,linear_y}",
    "conv": "conv_1d",
    "output": "linear_out",
    "decay": "rg_lru.recurrent_param",
    **{f"{gate}_{leaf}": f"rg_lru.{name}_{leaf}" for gate, name in GATES.items() for leaf in ("weight", "bias")},
}
"""External names of a recurrence's tensors, by the native ones."""


def in_bf16(number: float) -> float:
    """Return a positive number rounded to bf16, as transformers stores the factor of the embeddings in every dtype."""
    (bits,) = struct.unpack("<I", struct.pack("<f", number))
    bits += 0x7FFF + (bits >> 16 & 1)
    result: float = struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0]
    return result


def read_types(config: ExternalConfig, n_layers: int) -> list[bool]:
    """Return whether each layer has a recurrence: `block_types`, repeated."""
    kinds = config.items("block_types", TYPES)
    if not kinds or not set(kinds) <= set(TYPES):
        config.refuse("block_types", "it should be a list of recurrent and attention")
    if config.value("_block_types") not in (None, kinds):
        config.refuse("_block_types", "block_types has another value")
    return [kinds[index % len(kinds)] == "recurrent" for index in range(n_layers)]


def read_recurrence(config: ExternalConfig, activation: Any) -> dict[str, Any]:
    """Return what a layer with a recurrence overrides."""
    attention = {
        "name": "rg-lru",
        "d_inner": config.integer("lru_width", config.integer("hidden_size")),
        "n_heads": config.integer("num_attention_heads"),
        "conv_width": config.integer("conv1d_width", 4),
        "activation": activation,
    }
    return {"attention": attention, "position": "none"}


def write_recurrence(model: Any) -> dict[str, Any]:
    """Return the keys of the recurrence and of its layers."""
    attentions = [layer.attention for layer in model.layer_specs()]
    first = next((each for each in attentions if each.name == "rg-lru"), None)
    sizes = {} if first is None else {"lru_width": first.d_inner, "conv1d_width": first.conv_width}
    return {**sizes, "block_types": ["recurrent" if each.name == "rg-lru" else "attention" for each in attentions]}


def rules(model: Any) -> list[Rule]:
    """Return the rules of the layers, those of recurrences first."""
    layer = "model.layers.*"
    return [
        *numbered_rules(model, "rg-lru", "model.layers.{}.temporal_block", TENSORS, {"input": HALVES}),
        Rule("blocks.*.attention_norm", f"{layer}.temporal_pre_norm"),
        Rule("blocks.*.attention.qkv", f"{layer}.temporal_block.{{q,k,v}}_proj", HEADS),
        Rule("blocks.*.attention.output", f"{layer}.temporal_block.o_proj"),
        Rule("blocks.*.feedforward_norm", f"{layer}.channel_pre_norm"),
        Rule("blocks.*.feedforward.gate_up", f"{layer}.mlp_block.{{gate,up}}_proj", HALVES),
        Rule("blocks.*.feedforward.down", f"{layer}.mlp_block.down_proj"),
    ]
