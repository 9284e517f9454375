"""Rotary positions as configurations of transformers describe them, with the keys of old and new versions."""

from __future__ import annotations

import math
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["as_parameters", "read_rope", "read_rotary", "read_two", "read_typed", "write_rope", "write_rotary", "write_two"]

_SCALINGS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope", "proportional")


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
    fraction = config.number("partial_rotary_factor", fraction)
    if fraction_key:
        config.agree("partial_rotary_factor", fraction_key)
        fraction = config.number(fraction_key, fraction)
    config.value("rope_parameters")
    section = config.section("rope_scaling" if config.value("rope_scaling") else "rope_parameters")
    if not partial:
        for each in (config, section):
            _whole_heads(each)
    return read_rotary(section, config, base, fraction)


def _whole_heads(section: ExternalConfig) -> None:
    """Refuse rotary positions on a part of each head, where transformers rotates whole heads whatever the key says."""
    section.only("partial_rotary_factor", 1.0, 1, why="transformers rotates whole heads in this family")


def read_rotary(
    section: ExternalConfig, config: ExternalConfig, base: float, fraction: float = 1.0, kind: str = "default"
) -> dict[str, Any]:
    """Return the `rotary` position for one mapping of rope parameters; `kind` is the default of `rope_type`."""
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
    longest = config.integer("max_position_embeddings", 2048)
    if kind == "default":
        return position
    if kind == "linear":
        scaling = {"factor": section.number("factor")}
    elif kind == "dynamic":
        scaling = {"factor": section.number("factor"), "original_context_length": longest}
    elif kind == "llama3":
        scaling = {
            "factor": section.number("factor"),
            "low_frequency_factor": section.number("low_freq_factor"),
            "high_frequency_factor": section.number("high_freq_factor"),
            "original_context_length": _original_length(section, config, longest),
        }
    elif kind == "yarn":
        scaling = _yarn(section, config, longest)
    elif kind in ("longrope", "su"):
        kind = "longrope"
        scaling = {
            "short": section.items("short_factor"),
            "long": section.items("long_factor"),
            "factor": section.maybe("factor"),
            "attention_factor": section.maybe("attention_factor"),
            "original_context_length": _original_length(section, config, longest),
        }
    else:
        section.refuse(key, f"gptkit has no such scaling of rotary positions, only {', '.join(_SCALINGS)}")
    return {**position, "scaling": {"name": kind, **scaling}}


def read_two(config: ExternalConfig, base: float, local_base: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the positions of full and of sliding layers; the keys of old versions scale only the former."""
    nested = config.section("rope_parameters")
    section = nested.section("full_attention") if "full_attention" in nested else config.section("rope_scaling")
    scaling = config.value("rope_scaling")
    if scaling and "full_attention" in nested and any(section.value(key) != each for key, each in scaling.items()):
        config.refuse(
            "rope_scaling", "rope_parameters scales the layers with full attention otherwise; remove one of the two"
        )
    for each in (section, nested.section("sliding_attention")):
        _whole_heads(each)
    full = read_rotary(section, config, config.number("rope_theta", base))
    local = read_rotary(nested.section("sliding_attention"), config, config.number("rope_local_base_freq", local_base))
    return full, {"scaling": None, **local}


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
        _whole_heads(section)
    return read_rotary(section, config, base, fraction, kind)


def write_two(layers: Any) -> dict[str, Any]:
    """Return the keys that `read_two` reads, for the layers of a model."""
    full = next((layer.position for layer in layers if not layer.attention.window), layers[0].position)
    local = next((layer.position for layer in layers if layer.attention.window), full)
    return {"rope_parameters": {"full_attention": write_rotary(full), "sliding_attention": write_rotary(local)}}


def _original_length(section: ExternalConfig, config: ExternalConfig, default: int) -> int:
    """Return the context length before scaling; the key may be in the section, beside it, or in both, with one value."""
    key = "original_max_position_embeddings"
    own = config.integer(key) if key in config else None
    result = section.integer(key, default if own is None else own)
    if own is not None and own != result:
        config.refuse(key, f"{section.place} has {result:,}")
    return result


def _yarn(section: ExternalConfig, config: ExternalConfig, longest: int) -> dict[str, Any]:
    trained = _original_length(section, config, longest)
    factor = section.number("factor", longest / trained)
    sharpening = section.maybe("attention_factor")
    scales = [section.maybe(key) for key in ("mscale", "mscale_all_dim")]
    if sharpening is None:
        each = [0.1 * (scale or 1) * math.log(factor) + 1 if factor > 1 else 1.0 for scale in scales]
        sharpening = each[0] / each[1] if all(scales) else (0.1 * math.log(factor) + 1 if factor > 1 else 1.0)
    return {
        "factor": factor,
        "original_context_length": trained,
        "beta_fast": section.number("beta_fast", 32),
        "beta_slow": section.number("beta_slow", 1),
        "truncate": section.flag("truncate", True),
        "attention_factor": sharpening,
    }


def write_rope(position: Any) -> dict[str, Any]:
    """Return the keys of a `rotary` position that old and new versions of transformers read."""
    rotary = write_rotary(position)
    if rotary["rope_type"] == "default":
        # A null `rope_scaling` stands for the class's own default in new versions, which may be a scaling.
        flat: dict[str, Any] = {key: rotary[key] for key in ("rope_theta", "partial_rotary_factor") if key in rotary}
        return {**flat, "rope_scaling": None, "rope_parameters": rotary}
    flat = {key: rotary.pop(key) for key in ("rope_theta", "partial_rotary_factor") if key in rotary}
    return {**flat, "rope_scaling": rotary}


def write_rotary(position: Any) -> dict[str, Any]:
    """Return the mapping of rope parameters of a `rotary` position."""
    written: dict[str, Any] = {"rope_theta": position.base, "rope_type": "default"}
    if position.fraction != 1:
        written["partial_rotary_factor"] = position.fraction
    scaling: Any = position.scaling
    if scaling is None:
        return written
    names = {
        "factor": "factor",
        "fraction": "partial_rotary_factor",
        "original_context_length": "original_max_position_embeddings",
        "low_frequency_factor": "low_freq_factor",
        "high_frequency_factor": "high_freq_factor",
        "short": "short_factor",
        "long": "long_factor",
    }
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in scaling}
    name = fields.pop("name")
    if name == "dynamic":
        fields.pop("original_context_length")
    return {**written, "rope_type": name, **{names.get(k, k): v for k, v in fields.items() if v is not None}}


def as_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the scaling in `rope_parameters`, for a class that does not read `rope_scaling`."""
    result = dict(config)
    if scaling := result.pop("rope_scaling", None):
        result["rope_parameters"] = {"rope_theta": result["rope_theta"], **scaling}
    return result
