"""Limits of whole numbers that a module stores as indices, such as a table of experts.

A module declares them in its attribute ``index_limits``: the number of choices by the name of its own tensor.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["index_limits", "index_problem"]


def index_limits(model: nn.Module) -> dict[str, int]:
    """Return the number of choices of each tensor of indices, by its name in the model."""
    return {
        f"{name}.{own}" if name else own: limit
        for name, module in model.named_modules()
        for own, limit in getattr(module, "index_limits", {}).items()
    }


def index_problem(indices: Tensor, limit: int) -> str | None:
    """Return what is wrong with a tensor of indices; None if all are from 0 to `limit` - 1, or it has no values (meta)."""
    if indices.is_meta or not indices.numel():
        return None
    low, high = indices.min().item(), indices.max().item()
    if low >= 0 and high < limit:
        return None
    return f"has the index {low if low < 0 else high}, which should be from 0 to {limit - 1}"
