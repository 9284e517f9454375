"""A norm with weights of its own for each head, or for each of several vectors of a token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gptkit.nn.initial import Initial

__all__ = ["EachHead"]


class EachHead(nn.Module):
    """Norm with separate weights for every head: (…, H, D) -> (…, H, D). One call per head.

    Each parameter of the norm is stacked over the heads: its shape begins with H.
    """

    def __init__(self, norm: nn.Module, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self._norm = (norm,)  # in a tuple, so that its parameters are not registered
        for name, parameter in norm.named_parameters():
            self.register_parameter(name, nn.Parameter(parameter.new_empty(n_heads, *parameter.shape)))

    def initial(self) -> dict[str, Initial]:
        declared: dict[str, Initial] = getattr(self._norm[0], "initial", dict)()
        return declared

    def forward(self, x_BTHD: Tensor) -> Tensor:
        norm, own = self._norm[0], self._parameters
        each = [{name: stack[head] for name, stack in own.items() if stack is not None} for head in range(self.n_heads)]
        heads = [functional_call(norm, each[head], (x_BTHD[..., head, :],)) for head in range(self.n_heads)]
        return torch.stack(heads, dim=-2)
