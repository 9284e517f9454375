"""Communication between the processes of tensor parallelism, with gradients."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["PartGroup", "enter", "joined", "leave"]


class PartGroup(Protocol):
    """Communication between the processes that hold the parts of a module."""

    def gather(self, part: Tensor) -> list[Tensor]:
        """Return the parts of all processes, in order; collective, without a gradient."""

    def add(self, x: Tensor) -> Tensor:
        """Return the sum over the processes; collective, without a gradient."""


def enter(x: Tensor, group: PartGroup) -> Tensor:
    """Return x as the input of parts: the identity, whose gradient is summed over the processes."""
    entered: Tensor = _Enter.apply(x, group)  # type: ignore[no-untyped-call]
    return entered


def leave(x: Tensor, group: PartGroup) -> Tensor:
    """Return the sum of x over the processes, whose gradient is passed on as it is."""
    left: Tensor = _Leave.apply(x, group)  # type: ignore[no-untyped-call]
    return left


def joined(x: Tensor, index: int, group: PartGroup) -> Tensor:
    """Return the parts of all processes, concatenated along the last dimension; this process has the part `index`."""
    result: Tensor = _Joined.apply(x, index, group)  # type: ignore[no-untyped-call]
    return result


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: PartGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.group.add(grad), None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: PartGroup) -> Tensor:
        return group.add(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: int, group: PartGroup) -> Tensor:
        ctx.index, ctx.size = index, x.shape[-1]
        return torch.cat(group.gather(x), -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.narrow(-1, ctx.index * ctx.size, ctx.size), None, None
