"""Layers of lightning attention: their tensors, and the tables of decays that checkpoints hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gptkit.interop.families.parts.hybrids import numbered_rules
from gptkit.interop.layouts import GROUPED
from gptkit.kinds.family import Constant, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BLOCK", "TABLES", "lightning_rules", "tables"]

BLOCK = 256
"""Tokens of a chunk in exports: the default of `block_size`, which does not affect logits."""

TABLES = r".*\.self_attn\.(slope_rate|query_decay|key_decay|diagonal_decay)"
"""Pattern of the tables of decays, which follow from the configuration."""

NAMES = {"qkv": "qkv_proj", "norm": "norm", "gate": "output_gate", "output": "out_proj"}


def lightning_rules(model: Any) -> list[Rule]:
    """Return the rules of layers with lightning attention; they come before those of full attention."""
    return numbered_rules(model, "lightning", "model.layers.{}.self_attn", NAMES, {"qkv": GROUPED})


def tables(model: Any) -> Mapping[str, Constant]:
    """Return the tables of decays of all layers with lightning attention."""
    result: dict[str, Constant] = {}
    for index, layer in enumerate(model.layer_specs()):
        if layer.attention.name != "lightning":
            continue
        n_heads = layer.attention.n_heads
        factor = layer.attention.slope_factor(model.context(layer=layer.parts(index)))
        shapes = {"slope_rate": (n_heads, 1, 1), "query_decay": (n_heads, BLOCK, 1), "key_decay": (n_heads, BLOCK, 1)}
        for name, shape in {**shapes, "diagonal_decay": (1, n_heads, BLOCK, BLOCK)}.items():
            result[f"model.layers.{index}.self_attn.{name}"] = Constant(shape, _table(name, n_heads, factor))
    return result


def _table(name: str, n_heads: int, factor: float) -> Callable[[], Tensor]:
    def make() -> Tensor:
        import torch

        slopes_H11 = ((1 / 2 ** (8 / n_heads)) ** torch.arange(1, n_heads + 1) * factor)[:, None, None]
        if name == "slope_rate":
            return slopes_H11
        index_C = torch.arange(1, BLOCK + 1)
        if name == "query_decay":
            return (-slopes_H11 * index_C[:, None]).exp()
        if name == "key_decay":
            return (-slopes_H11 * (BLOCK - index_C[:, None])).exp()
        back_CC = index_C[:, None] - index_C
        return (-slopes_H11 * back_CC).masked_fill(back_CC < 0, float("-inf")).exp()[None]

    return make
