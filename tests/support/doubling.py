"""A module that calls an operator which is defined in Python, as a plugin may."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Doubling"]


@torch.library.custom_op("gptkit_tests::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return x * 2


@doubled.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Doubling(nn.Module):
    """Twice the result of another module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return doubled(self.inner(x))
