"""One mapping of rope parameters, as a `rotary` position with its scaling."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.rope.yarn import LENGTH, original_length, read_yarn
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_rotary", "require_whole_heads"]

_SCALINGS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope", "proportional")


def read_rotary(
    section: ExternalConfig,
    config: ExternalConfig,
    base: float,
    fraction: float = 1.0,
    kind: str = "default",
    *,
    beside: bool = True,
) -> dict[str, Any]:
    """Return the `rotary` position for one mapping of rope parameters.

    Args:
        section: the mapping.
        config: the configuration.
        base, fraction, kind: the defaults of `rope_theta`, `partial_rotary_factor` and `rope_type`.
        beside: whether `original_max_position_embeddings` may be beside the mapping; transformers ignores it there where
            types of layers have mappings of their own.
    """
    position: dict[str, Any] = {"name": "rotary", "base": section.number("rope_theta", base)}
    fraction = section.number("partial_rotary_factor", fraction)
    key = "type" if "type" in section and "rope_type" not in section else "rope_type"
    section.agree("rope_type", "type")
    kind = section.text(key, kind)
    if kind == "proportional":
        scaling: dict[str, Any] = {"fraction": fraction, "factor": section.number("factor", 1.0)}
        return {**position, "scaling": {"name": kind, **scaling}}
    if fraction != 1:
        position["fraction"] = fraction
    if kind == "default":
        return position
    if kind == "linear":
        scaling = {"factor": section.number("factor")}
    elif kind == "dynamic":
        scaling = {"factor": section.number("factor"), "original_context_length": config.integer(LENGTH)}
    elif kind == "llama3":
        scaling = {
            "factor": section.number("factor"),
            "low_frequency_factor": section.number("low_freq_factor"),
            "high_frequency_factor": section.number("high_freq_factor"),
            "original_context_length": original_length(section, config, beside=beside),
        }
    elif kind == "yarn":
        scaling = read_yarn(section, config, beside=beside)
    elif kind in ("longrope", "su"):
        kind = "longrope"
        if "factor" not in section and "attention_factor" not in section:
            config.integer(LENGTH)  # required: the quotient of both lengths is the factor
        scaling = {
            "short": section.items("short_factor"),
            "long": section.items("long_factor"),
            "factor": section.maybe("factor"),
            "attention_factor": section.maybe("attention_factor"),
            "original_context_length": original_length(section, config, beside=beside),
        }
    else:
        section.refuse(key, f"gptkit has no such scaling of rotary positions, only {', '.join(_SCALINGS)}")
    return {**position, "scaling": {"name": kind, **scaling}}


def require_whole_heads(section: ExternalConfig) -> None:
    """Refuse rotary positions on a part of each head, where transformers rotates whole heads whatever the key says."""
    section.only("partial_rotary_factor", 1.0, 1, why="transformers rotates whole heads in this family")
