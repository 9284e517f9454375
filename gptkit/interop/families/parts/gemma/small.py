"""Tiny configurations of Gemma 4."""

from __future__ import annotations

from gptkit.interop.families.parts.gemma.experts import EXPERTS

__all__ = ["SMALL", "SMALL_EXPERTS", "TIED"]

SMALL = {
    "head_dim": 16,
    "global_head_dim": 32,
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
SMALL_EXPERTS = {**SMALL, "enable_moe_block": True, **dict(zip(EXPERTS, (4, 2, 24), strict=True))}
"""One with experts."""
# A norm of one feature, a variant of none, is well conditioned with such an epsilon.
TIED = {**SMALL, "rms_norm_eps": 0.1, "attention_k_eq_v": True, "num_global_key_value_heads": 1}
"""One with keys that are values too."""
