"""Activations without a module in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CappedSilu", "QuickGelu", "ReluSquared"]


class CappedSilu(nn.Module):
    """Compute cap · tanh(x / cap) · σ(x)."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        return self.cap * torch.tanh(x / self.cap) * torch.sigmoid(x)

    def extra_repr(self) -> str:
        return f"cap={self.cap}"


class QuickGelu(nn.Module):
    """Compute x · σ(alpha · x)."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.alpha * x)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class ReluSquared(nn.Module):
    """max(0, x)²."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()
