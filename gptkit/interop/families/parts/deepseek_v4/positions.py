"""The two rotations: of layers with a window alone, and of those with compressed blocks."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.rope import read_rotary, write_rotary
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_position", "read_rotated", "write_positions"]

_KEYS = {"main": ("rope_theta", 10000.0), "compress": ("compress_rope_theta", 160000.0)}


def read_rotated(config: ExternalConfig) -> int:
    """Return the number of rotated features of a head."""
    d_head = config.integer("head_dim", 512)
    plain = config.integer("qk_rope_head_dim") / d_head if "qk_rope_head_dim" in config else 0.125
    share = config.number("partial_rotary_factor", plain)
    nested = config.section("rope_parameters")
    shares = {nested.section(label).number("partial_rotary_factor", 1.0) for label in _KEYS if _is_nested(nested)}
    rotated = {int(d_head * each) for each in shares or {share}}
    if len(rotated) > 1:
        config.refuse("rope_parameters", "all layers rotate the same number of features in gptkit")
    (result,) = rotated
    if "qk_rope_head_dim" in config and config.integer("qk_rope_head_dim") != result:
        config.refuse("qk_rope_head_dim", f"the share of rotated features gives {result}")
    return result


def read_position(config: ExternalConfig, label: str) -> dict[str, Any]:
    """Return the position of the layers with one of the labels `main` and `compress`."""
    bases = {each: config.number(*key) for each, key in _KEYS.items()}
    nested = config.section("rope_parameters")
    if _is_nested(nested):
        # A mapping without a base has that of `main`, whatever `compress_rope_theta` is.
        both = {each: read_rotary(nested.section(each), config, bases["main"], beside=False) for each in bases}
        position = both[label]
        if (position.get("scaling") or {}).get("name") == "proportional":
            nested.section(label).refuse("rope_type", "the head's features that are not rotated are not counted here")
    else:
        # Only compressed layers are scaled.
        section = nested if nested.data else config.section("rope_scaling")
        position = read_rotary(section, config, bases[label]) if label == "compress" else {"name": "rotary"}
        position["base"] = bases[label]
        scaling = position.get("scaling")
        if scaling and scaling["name"] == "yarn" and "attention_factor" not in section:
            scaling["attention_factor"] = 1.0
    position.pop("fraction", None)
    return {**position, "layout": "interleaved"}


def write_positions(model: Any) -> dict[str, Any]:
    """Return the keys of both rotations."""
    layers = model.layer_specs()
    attention, own = layers[0].attention, dict[str, dict[str, Any]]()
    share = attention.d_rotary / attention.d_head
    for layer in layers:
        own.setdefault("main" if layer.attention.block_size is None else "compress", write_rotary(layer.position))
    usual = {label: {"rope_theta": base, "rope_type": "default"} for label, (_, base) in _KEYS.items()}
    parameters = {label: {**usual[label], **own.get(label, {}), "partial_rotary_factor": share} for label in _KEYS}
    bases = {key: parameters[label]["rope_theta"] for label, (key, _) in _KEYS.items()}
    return {**bases, "partial_rotary_factor": share, "rope_parameters": parameters}


def _is_nested(section: ExternalConfig) -> bool:
    return all(label in section for label in _KEYS)
