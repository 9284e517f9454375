"""The rotary positions of a configuration that has one for each type of layers."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.rope.scaling import read_rotary, require_whole_heads
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_two", "read_typed"]


def read_two(
    config: ExternalConfig, base: float, local_base: float, local_key: str = "rope_local_base_freq"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the positions of full and of sliding layers; the keys of old versions scale only the former.

    Args:
        config: the configuration.
        base, local_base: the defaults of `rope_theta` and of `local_key`.
        local_key: the key of the base of sliding layers; empty in a family that has none.
    """
    nested = config.section("rope_parameters")
    section = nested.section("full_attention") if "full_attention" in nested else config.section("rope_scaling")
    scaling = config.value("rope_scaling")
    if scaling and "full_attention" in nested and any(section.value(key) != each for key, each in scaling.items()):
        config.refuse(
            "rope_scaling", "rope_parameters scales the layers with full attention otherwise; remove one of the two"
        )
    if scaling and scaling.get("type", "default") != "default" and "rope_type" not in scaling:
        config.refuse("rope_scaling", "transformers ignores type in this family; rename it to rope_type, or remove it")
    for each in (section, nested.section("sliding_attention")):
        require_whole_heads(each)
    full = read_rotary(section, config, config.number("rope_theta", base), beside=False)
    local = nested.section("sliding_attention")
    if not local_key and "rope_theta" in config and "rope_theta" not in local and config.number("rope_theta") != local_base:
        config.refuse(
            "rope_theta", "transformers applies it to full layers alone; give the base of both types in rope_parameters"
        )
    local_base = config.number(local_key, local_base) if local_key else local_base
    local_position = read_rotary(local, config, local_base, beside=False)
    return full, {"scaling": None, **local_position}


def read_typed(
    config: ExternalConfig, layer_type: str, base: float, kind: str = "default", fraction: float = 1.0
) -> dict[str, Any]:
    """Return the position of the layers of a type, for which `rope_parameters` has a mapping.

    Args:
        base: the default of `rope_theta`.
        kind: `rope_type` in a configuration without `rope_parameters`.
        fraction: `partial_rotary_factor` in such a configuration.
    """
    section = config.section("rope_parameters").section(layer_type)
    if "rope_parameters" in config:
        kind, fraction = "default", 1.0
    section.only("rope_type", kind, "default", "linear", "proportional", why="gptkit has no such scaling in this family")
    if section.value("rope_type", kind) != "proportional":
        require_whole_heads(section)
    return read_rotary(section, config, base, fraction, kind)
