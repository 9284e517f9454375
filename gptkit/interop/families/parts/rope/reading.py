"""The rotary position of a configuration, one for all layers."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.rope.scaling import read_rotary, require_whole_heads
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_rope"]


def read_rope(
    config: ExternalConfig, *, base: float = 10000.0, fraction: float = 1.0, fraction_key: str = "", partial: bool = True
) -> dict[str, Any]:
    """Return the `rotary` position that a configuration describes.

    Args:
        config: `rope_scaling` (which replaces `rope_parameters` where both are given, as in transformers), `rope_theta`
            and `partial_rotary_factor` are read.
        base: the default of `rope_theta`.
        fraction: the default of `partial_rotary_factor`.
        fraction_key: another name of `partial_rotary_factor`.
        partial: whether the family rotates a part of each head; else `partial_rotary_factor` is refused.
    """
    base = config.number("rope_theta", base)
    # Null leaves whole heads rotated: the classes have their default for a missing key alone.
    fraction = 1.0 if config.is_null("partial_rotary_factor") else config.number("partial_rotary_factor", fraction)
    if fraction_key:
        config.agree("partial_rotary_factor", fraction_key)
        fraction = config.number(fraction_key, fraction)
    config.value("rope_parameters")
    config.value("original_max_position_embeddings")  # which only some scalings have
    section = config.section("rope_scaling" if config.value("rope_scaling") else "rope_parameters")
    if not partial:
        for each in (config, section):
            require_whole_heads(each)
    return read_rotary(section, config, base, fraction)
