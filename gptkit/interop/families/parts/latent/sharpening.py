"""The factor by which YaRN multiplies the scores of latent attention, beside the amplitude of sine and cosine."""

from __future__ import annotations

import math
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_sharpening", "write_sharpening"]


def read_sharpening(section: ExternalConfig) -> float:
    """Return the factor of queries and of keys, from a mapping of rope parameters."""
    if section.text("type" if "type" in section and "rope_type" not in section else "rope_type", "default") == "default":
        return 1.0
    # A missing factor has no default here: LongRoPE has another one than 1.
    factor, weight = section.maybe("factor") or 1.0, section.number("mscale_all_dim", 0.0)
    return 0.1 * weight * math.log(factor) + 1 if weight and factor > 1 else 1.0


def write_sharpening(scaling: dict[str, Any], attention: Any, position: Any) -> dict[str, Any]:
    """Return a mapping of rope parameters with the keys that `read_sharpening` reads.

    Args:
        scaling: the mapping without them.
        attention: the attention of a layer, with a scale.
        position: its position.
    """
    # One number of the configuration determines both: the scale of scores, and the amplitude of sine and cosine.
    plain = (attention.d_nope + attention.d_rotary) ** -0.5
    # A scaling of other frequencies may have no factor, and sharpens nothing.
    sharpening, factor = math.sqrt(attention.scale / plain), position.scaling.factor or 1.0
    weight = (sharpening - 1) / (0.1 * math.log(factor)) if factor > 1 else 0.0
    if abs(weight) <= 1e-9:
        return scaling
    result = {**scaling, "mscale_all_dim": round(weight, 6)}
    if position.scaling.name == "yarn":
        amplitude = result.pop("attention_factor", None) or 0.1 * math.log(factor) + 1
        result["mscale"] = round((amplitude * sharpening - 1) / (0.1 * math.log(factor)), 6)
    return result
