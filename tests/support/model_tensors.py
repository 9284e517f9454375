"""Models with random weights, and their tensors as formats receive them."""

from __future__ import annotations

import torch

from gptkit.kinds.format import TensorEntry
from gptkit.model.gpt import GPT

__all__ = ["Weights", "randomized"]


class Weights:
    """Tensors of a model in memory."""

    def __init__(self, model: GPT) -> None:
        stored = {**dict(model.named_parameters()), **model.state_dict(keep_vars=True)}
        first = {id(tensor): name for name, tensor in reversed(list(stored.items()))}
        self._tensors = {name: tensor.detach() for name, tensor in stored.items() if first[id(tensor)] == name}
        self.entries = {name: TensorEntry(tuple(tensor.shape), tensor.dtype) for name, tensor in self._tensors.items()}

    def get(self, name: str) -> torch.Tensor:
        return self._tensors[name]


@torch.no_grad()
def randomized(model: GPT) -> GPT:
    """Return the model with every weight random."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model
