"""ModernBERT's decoder: where the tensors of its layers are."""

from __future__ import annotations

from gptkit.interop.layouts import HEADS
from gptkit.kinds.family import Rule

__all__ = ["layer_rules"]

NAMES = {
    "attention_norm": "attn_norm",
    "attention.output": "attn.Wo",
    "feedforward_norm": "mlp_norm",
    "feedforward.gate_up": "mlp.Wi",
    "feedforward.down": "mlp.Wo",
}


def layer_rules(n_layers: int) -> list[Rule]:
    """Where the tensors of the layers are; the last one has other names.

    Args:
        n_layers: their number, with the last one.
    """
    last = f"blocks.{n_layers - 1}"
    return [
        Rule(f"{last}.feedforward_norm", "model.final_norm"),
        Rule(f"{last}.feedforward.projection", "lm_head.dense"),
        Rule("blocks.*.attention.qkv", "model.layers.*.attn.{q,k,v}_proj", HEADS),
        *(Rule(f"blocks.*.{own}", f"model.layers.*.{name}") for own, name in NAMES.items()),
    ]
