"""Matrices whose elements are floating-point numbers.

Shapes: O rows of a matrix (outputs), I columns (inputs).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.nn.packed import PackedMatrix

__all__ = ["PlainMatrix", "ReorderedMatrix", "reorders"]


class PlainMatrix(PackedMatrix):
    """A matrix in its usual order."""

    values: Tensor

    def __init__(self, values_OI: Tensor, dtype: torch.dtype) -> None:
        super().__init__(values_OI.shape[0], values_OI.shape[1], dtype)
        self.register_buffer("values", values_OI.to(dtype), persistent=False)

    def multiply(self, x: Tensor, bias_O: Tensor | None = None) -> Tensor:
        return F.linear(x, self.values, bias_O)

    def dense(self) -> Tensor:
        return self.values

    def rows(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.values)


def reorders(values_OI: Tensor, dtype: torch.dtype) -> bool:
    """Return whether oneDNN multiplies a matrix faster when it is in its own order."""
    if (
        values_OI.device.type != "cpu"
        or dtype != torch.bfloat16
        or values_OI.dtype != torch.bfloat16
        or values_OI.numel() == 0
    ):
        return False
    try:
        available = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):
        return False
    return bool(available)


class ReorderedMatrix(PackedMatrix):
    """A matrix in bf16 in the order of oneDNN's product.

    Inductor does not accept such a tensor: after `prepare_compiler` it is given the matrix in its usual order, which it may
    reorder by itself.

    Args:
        values_OI: the matrix.
        keep: keep it in its usual order too, of which rows can be looked up.
    """

    reordered: Tensor
    values: Tensor | None

    def __init__(self, values_OI: Tensor, *, keep: bool) -> None:
        super().__init__(values_OI.shape[0], values_OI.shape[1], torch.bfloat16)
        values_OI = values_OI.contiguous()
        self.register_buffer("reordered", torch.ops.mkldnn._reorder_linear_weight(values_OI, 1), persistent=False)
        self.register_buffer("values", values_OI if keep else None, persistent=False)
        self.for_inductor = False

    def multiply(self, x: Tensor, bias_O: Tensor | None = None) -> Tensor:
        if self.for_inductor and torch.compiler.is_compiling():
            return F.linear(x, self.dense(), bias_O)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.reordered, bias_O, "none", [], "")
        return product

    def dense(self) -> Tensor:
        return self.reordered.to_dense() if self.values is None else self.values

    def rows(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.dense())

    def prepare_compiler(self) -> None:
        self.values = self.dense()
        self.for_inductor = True
