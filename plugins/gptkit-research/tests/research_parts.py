"""Parts of models with random weights, on which formulas are tested."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import gptkit
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.kinds.position import HeadShape
from gptkit.nn.forward import Forward

__all__ = ["E", "T", "build", "forward", "inputs", "position", "spec"]

E, T = 12, 9
"""Model width, and number of tokens."""


def spec(**parts: Any) -> gptkit.ModelSpec:
    return gptkit.ModelSpec.model_validate({"d_model": E, "context_length": 32, "position": "none", **parts})


def build(model: gptkit.ModelSpec, part: str, layers: int = 1) -> list[Any]:
    """The part of each layer, with weights that are not what training starts with."""
    context = BuildContext(E, 32, layers, position=model.position)
    built = []
    for index in range(layers):
        parts = LayerParts(index, model.position, model.attention, model.norm, model.feedforward)
        built.append(getattr(model, part).build(context.replace(layer=parts)))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in built:
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return [module.double() for module in built]


def forward(rows: int = 1) -> Forward:
    return Forward(torch.zeros(rows, T, dtype=torch.long))


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def position(fields: dict[str, Any], n_heads: int, d_head: int) -> Any:
    context = BuildContext(E, 32, 1)
    module = spec(position=fields).position.build(context, heads=HeadShape(n_heads, n_heads, d_head)).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    return module
