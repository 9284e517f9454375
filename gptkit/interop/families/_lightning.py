"""Layers of lightning attention: their types, their tensors, and the tables of decays that checkpoints hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gptkit.interop.layouts import GROUPED
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Constant, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BLOCK", "TABLES", "full_layers", "lightning_layers", "lightning_rules", "read_types", "tables", "write_types"]

BLOCK = 256
"""Tokens of a chunk in exports: the default of `block_size`, which does not affect logits."""

TABLES = r".*\.self_attn\.(slope_rate|query_decay|key_decay|diagonal_decay)"
"""Pattern of the tables of decays, which follow from the configuration."""


def read_types(config: ExternalConfig, n_layers: int) -> list[bool]:
    """Return whether each layer has lightning attention: `layer_types`, or every second one."""
    usual = ["linear_attention" if index % 2 else "full_attention" for index in range(n_layers)]
    types = config.items("layer_types", usual)
    if len(types) != n_layers or not set(types) <= {"linear_attention", "full_attention"}:
        config.refuse("layer_types", f"it should name linear_attention or full_attention for each of {n_layers} layers")
    return [each == "linear_attention" for each in types]


def write_types(layers: Sequence[Any]) -> dict[str, Any]:
    """`layer_types` of a hybrid."""
    linear = [layer.attention.name == "lightning" for layer in layers]
    return {"layer_types": ["linear_attention" if each else "full_attention" for each in linear]}


def lightning_layers(layers: Sequence[Any]) -> list[Any]:
    """Return the layers with lightning attention."""
    return [layer for layer in layers if layer.attention.name == "lightning"]


def full_layers(layers: Sequence[Any]) -> list[Any]:
    """Return the other layers."""
    return [layer for layer in layers if layer.attention.name != "lightning"]


def lightning_rules(model: Any) -> list[Rule]:
    """Return the rules of layers with lightning attention; they come before those of full attention."""
    names = {"norm": "norm", "gate": "output_gate", "output": "out_proj"}
    rules: list[Rule] = []
    for index, layer in enumerate(model.layer_specs()):
        if layer.attention.name == "lightning":
            native, external = f"blocks.{index}.attention", f"model.layers.{index}.self_attn"
            rules.append(Rule(f"{native}.qkv", f"{external}.qkv_proj", GROUPED))
            rules += [Rule(f"{native}.{own}", f"{external}.{name}") for own, name in names.items()]
    return rules


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
