"""Hybrids: layers of which some have a recurrence in place of attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gptkit.interop.families.parts.layers import read_types
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Layout, Rule

__all__ = ["layers_with", "layers_without", "numbered_rules", "read_linear", "types_of", "write_linear"]

LINEAR, FULL = "linear_attention", "full_attention"
_NONE: Mapping[str, Layout] = MappingProxyType({})


def read_linear(config: ExternalConfig, linear: Sequence[bool]) -> list[bool]:
    """Return whether each layer has linear attention: `layer_types`, or else `linear`."""
    types = read_types(config, len(linear), types_of(linear), (LINEAR, FULL))
    return [each == LINEAR for each in types]


def write_linear(layers: Sequence[Any], attention: str) -> dict[str, Any]:
    """Return `layer_types` of a hybrid, whose linear attention has such a name."""
    return {"layer_types": types_of([layer.attention.name == attention for layer in layers])}


def types_of(linear: Sequence[bool]) -> list[str]:
    """Return the types of layers, of which some have linear attention."""
    return [LINEAR if each else FULL for each in linear]


def layers_with(layers: Sequence[Any], attention: str) -> list[Any]:
    """Return the layers with an attention of that name."""
    return [layer for layer in layers if layer.attention.name == attention]


def layers_without(layers: Sequence[Any], attention: str) -> list[Any]:
    """Return the layers with any other attention."""
    return [layer for layer in layers if layer.attention.name != attention]


def numbered_rules(
    model: Any, attention: str, external: str, names: Mapping[str, str], layouts: Mapping[str, Layout] = _NONE
) -> list[Rule]:
    """Return the rules of the layers with one attention, layer by layer; they come before those of the other layers.

    Args:
        model: the model's spec.
        attention: the name of the attention.
        external: its external name, with ``{}`` for the index of the layer.
        names: external names of its tensors, by the native ones.
        layouts: layouts of tensors that are not stored as here, by the native names.
    """
    return [
        Rule(f"blocks.{index}.attention.{native}", f"{external.format(index)}.{name}", layouts.get(native))
        for index, layer in enumerate(model.layer_specs())
        if layer.attention.name == attention
        for native, name in names.items()
    ]
