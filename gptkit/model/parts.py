"""Numbers of parameters of a model's parts, for its diagram."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from gptkit.diagrams.outline import Counts, LayerCounts
from gptkit.model.gpt import GPT
from gptkit.model.tree import count
from gptkit.nn.attention.base import Attention
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.position import Position

__all__ = ["count_parts"]


def count_parts(model: GPT) -> Counts:
    """Count the parameters of each part; those that parts share are counted in `shared` or with the part before."""
    position = _of_type(model.embedding, Position)
    seen = {id(parameter) for parameter in model.embedding.parameters()}
    return Counts(
        embedding=count(model.embedding) - position,
        position=position,
        layers=tuple(_layers(model)),
        final_norm=count(model.final_norm),
        head=sum(parameter.numel() for parameter in model.head.parameters() if id(parameter) not in seen),
        shared=count(model.shared),
        total=count(model),
    )


def _layers(model: GPT) -> Iterator[LayerCounts]:
    norms: dict[int, int] = {}  # by layer spec, which layers of a pattern share
    for index, (block, layer) in enumerate(zip(model.blocks, model.spec.layer_specs(), strict=True)):
        if id(layer) not in norms:
            context = model.spec.context(model.vocab_size, layer.parts(index))
            with torch.device("meta"):
                norms[id(layer)] = count(layer.norm.build(context, dim=context.d_model))
        yield LayerCounts(_of_type(block, Attention), _of_type(block, FeedForward), norms[id(layer)], count(block))


def _of_type(module: nn.Module, kind: type[nn.Module]) -> int:
    """Return the number of parameters of the outermost modules of a type."""
    total = 0
    for child in module.children():
        total += count(child) if isinstance(child, kind) else _of_type(child, kind)
    return total
