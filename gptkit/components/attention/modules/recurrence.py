"""Parts that attentions with a recurrent state share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["draw", "draw_step_bias", "unit"]


def unit(x: Tensor) -> Tensor:
    """Normalize vectors to length 1; the small constant keeps the zeros of padding."""
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-6)


def draw(shape: torch.Size, generator: torch.Generator, low: float, high: float) -> Tensor:
    """Draw uniform values between `low` and `high`."""
    return torch.empty(shape).uniform_(low, high, generator=generator)


def draw_step_bias(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw biases whose softplus is between 0.001 and 0.1, uniform on a logarithmic scale."""
    step = draw(shape, generator, math.log(0.001), math.log(0.1)).exp()
    return step + (-(-step).expm1()).log()
