"""Dropout as a function, without overhead when it is inactive."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["dropout"]


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Zero each element with `probability`, and divide the others by 1 - probability; x itself outside training.

    A function of a number and a flag, not a module: a cached decode step calls it several times per layer, and a module
    that returns its input takes as long as a small kernel.

    Args:
        x: any shape.
        probability: 0 ≤ p ≤ 1.
        training: the module's flag of the same name.

    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
    """
    return F.dropout(x, probability) if training and probability else x
