"""Short gated convolutions, as the LFM families have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.hybrids import layers_with, numbered_rules
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["conv_rules", "read_conv", "write_conv"]


def read_conv(config: ExternalConfig, width: int) -> dict[str, Any]:
    """Return what a layer with a convolution overrides; `width` is the default of its width."""
    width, bias = config.integer("conv_L_cache", width), config.flag("conv_bias", False)
    return {"attention": {"name": "short-conv", "width": width, "bias": bias}, "position": "none"}


def write_conv(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the convolutions among the layers, and the types of all layers."""
    convs = [layer.attention for layer in layers_with(layers, "short-conv")]
    types = ["conv" if layer.attention.name == "short-conv" else "full_attention" for layer in layers]
    return {"layer_types": types, **({"conv_L_cache": convs[0].width, "conv_bias": convs[0].bias} if convs else {})}


def conv_rules(model: Any) -> list[Rule]:
    """Return the rules of convolutions; they come before those of attention layers."""
    names = {"input": "in_proj", "conv": "conv", "output": "out_proj"}
    return numbered_rules(model, "short-conv", "model.layers.{}.conv", names)
