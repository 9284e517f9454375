"""Operators of torch that ONNX does not have, in others that it has."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError

__all__ = ["decompositions", "solve_unit_lower", "translations"]

_CHUNK = 64
"""Largest size of a system whose size varies: the tokens that a recurrence computes at once."""


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return functions that compute operators by other operators of torch, by the operator."""
    return {torch.ops.aten.linalg_solve_triangular.default: solve_unit_lower}


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return functions that write operators in ONNX, by the operator, as torch.onnx.export receives them."""
    op: Any = importlib.import_module("onnxscript").opset18

    def stable_sort(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        # TopK returns the first of equal elements first, in both orders, as a stable sort does.
        size = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]), axis=0)
        return op.TopK(x, size, axis=dim, largest=int(descending), sorted=1)

    return {torch.ops.aten.sort.stable: stable_sort}


def solve_unit_lower(a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """Solve the system of a lower triangular matrix with ones on the diagonal, by products of matrices.

    The inverse of [[P, 0], [Q, R]] is [[P⁻¹, 0], [−R⁻¹ Q P⁻¹, R⁻¹]]. Blocks begin with one row, whose inverses are ones, and
    double in size: substitution by blocks, as stable as that by rows.

    Args:
        a: the matrices, (…, C, C), of which the elements on and above the diagonal are not read; C is 64 at most where it
            varies.
        b: the right-hand sides, (…, C, D).
        upper, left, unitriangular: as for torch.linalg.solve_triangular; only those of this form are supported.

    Raises:
        ExternalModelError: another form is asked for.
    """
    if upper or not left or not unitriangular:
        raise ExternalModelError(
            "of triangular systems, only lower ones with ones on the diagonal can be expressed in ONNX",
            hint="Export a program of torch.export instead, which has all of them (a path that ends in .pt2).",
        )
    size = a.shape[-1]
    most = size if isinstance(size, int) else _CHUNK
    index_C = torch.arange(size, device=a.device)
    inverse = (index_C[:, None] == index_C).to(a.dtype)
    half = 1
    while half < most:
        block_C = index_C // half
        row_C1, column_C = block_C[:, None], block_C
        below = (row_C1 // 2 == column_C // 2) & (row_C1 % 2 == 1) & (column_C % 2 == 0)
        inverse = inverse - inverse @ a.masked_fill(~below, 0) @ inverse
        half *= 2
    return inverse @ b
