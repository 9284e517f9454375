"""Types of layers in Zamba and Zamba2: some have a branch, whose weights the layers of a group share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.layers import read_types
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["HYBRID", "LINEAR", "branches", "firsts", "read_hybrid", "skipped", "write_hybrid"]

LINEAR, HYBRID = "linear_attention", "hybrid"


def read_hybrid(config: ExternalConfig, n_layers: int, usual: Sequence[str]) -> list[bool]:
    """Return whether each layer has the branch."""
    key = config.alias("layers_block_type", "layer_types")
    types = read_types(config, n_layers, usual, (LINEAR, HYBRID), key, {"mamba": LINEAR, "mamba2": LINEAR})
    if HYBRID not in types:
        config.refuse(key, "a layer should be hybrid")
    return [each == HYBRID for each in types]


def write_hybrid(model: Any) -> dict[str, Any]:
    """Return the types of layers."""
    at = branches(model)
    return {"layers_block_type": [HYBRID if index in at else LINEAR for index in range(model.n_layers)]}


def branches(model: Any) -> dict[int, Any]:
    """Return the blocks with a branch, by the index of the layer."""
    blocks = {index: layer.block for index, layer in enumerate(model.layer_specs())}
    return {index: block for index, block in blocks.items() if block.name == "shared-branch"}


def firsts(model: Any) -> dict[int, int]:
    """Return the first layer of each group."""
    return {block.group: index for index, block in reversed(branches(model).items())}


def skipped(model: Any, name: str) -> list[str]:
    """Return patterns of the branch in the later layers of a group, with the weights of the first."""
    later = set(branches(model)) - set(firsts(model).values())
    return [rf"model\.layers\.({'|'.join(map(str, sorted(later)))})\.{name}\..*"] if later else []
