"""Short gated convolutions, as the LFM families have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["conv_rules", "read_conv", "read_types", "write_conv"]


def read_types(config: ExternalConfig, usual: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """Return the type of each layer; `usual` where the configuration names none."""
    types: list[str] = config.items("layer_types", list(usual))
    if len(types) != len(usual) or not set(types) <= set(known):
        config.refuse(
            "layer_types", f"it should name {', '.join(known[:-1])} or {known[-1]} for each of {len(usual)} layers"
        )
    return types


def read_conv(config: ExternalConfig, width: int) -> dict[str, Any]:
    """Return what a layer with a convolution overrides; `width` is the default of its width."""
    width, bias = config.integer("conv_L_cache", width), config.flag("conv_bias", False)
    return {"attention": {"name": "short-conv", "width": width, "bias": bias}, "position": "none"}


def write_conv(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the convolutions among the layers, and the types of all layers."""
    convs = [layer.attention for layer in layers if layer.attention.name == "short-conv"]
    types = ["conv" if layer.attention.name == "short-conv" else "full_attention" for layer in layers]
    return {"layer_types": types, **({"conv_L_cache": convs[0].width, "conv_bias": convs[0].bias} if convs else {})}


def conv_rules(model: Any) -> list[Rule]:
    """Return the names of the tensors of convolutions."""
    convs = [index for index, each in enumerate(model.layer_specs()) if each.attention.name == "short-conv"]
    names = {"input": "in_proj", "conv": "conv", "output": "out_proj"}
    return [Rule(f"blocks.{i}.attention.{n}", f"model.layers.{i}.conv.{e}") for i in convs for n, e in names.items()]
