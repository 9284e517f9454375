"""Tensors of Inkling."""

from __future__ import annotations

from gptkit.interop.families.parts.inkling.layouts import FirstRows, GatesWithShared, WithShared
from gptkit.kinds.family import Rule

__all__ = ["inkling_rules"]

ATTENTION = {
    "relative.features": "r_proj",
    "relative.table": "rel_logits_proj.proj",
    "k_conv": "k_sconv.conv1d",
    "v_conv": "v_sconv.conv1d",
}
BLOCK = {
    "attention_conv": "attn_sconv.conv1d",
    "feedforward_conv": "mlp_sconv.conv1d",
    "feedforward.hidden_norm.weight": "mlp.global_scale",
    "feedforward.output_norm.weight": "mlp.gate.global_scale",
    "feedforward.router.scores": "mlp.gate",
    "feedforward.router.selection_bias": "mlp.gate.e_score_correction_bias",
}


def inkling_rules(n_ids: int | None) -> list[Rule]:
    """Return the rules of what other families do not have, and of the tables for this number of ids."""
    own, layer = "blocks.*", "model.layers.*"
    experts, chosen, shared = f"{own}.feedforward.experts", "experts", "shared_experts"
    gates = f"{layer}.mlp.{{{chosen}.gate_up_proj,{shared}.gate_proj,{shared}.up_proj}}"
    return [
        Rule("embedding.table", "model.embed_tokens", FirstRows(n_ids)),
        Rule("embedding.norm", "model.embed_tokens.embed_norm"),
        Rule("head", "lm_head", FirstRows(n_ids)),
        *(Rule(f"{own}.attention.{native}", f"{layer}.self_attn.{name}") for native, name in ATTENTION.items()),
        *(Rule(f"{own}.{native}", f"{layer}.{name}") for native, name in BLOCK.items()),
        Rule(f"{experts}.gate_up.weight", gates, GatesWithShared()),
        Rule(f"{experts}.down.weight", f"{layer}.mlp.{{{chosen},{shared}}}.down_proj", WithShared()),
    ]
