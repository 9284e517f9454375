"""Precisions: the values that a weight is rounded to, and the error."""

from __future__ import annotations

from typing import cast

import torch

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first
from gptkit.kinds.precision import PrecisionSpec

__all__ = ["draw"]

ROWS, COLUMNS = 16, 256


@torch.no_grad()
def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return stored against given weights of one group, and the distribution of the error."""
    spec = cast("PrecisionSpec", first(cls, registry).spec)
    weight_OI = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    stored = spec.quantize(weight_OI)
    rounded_OI = spec.dequantize(stored, COLUMNS)
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    # The first columns of a row share one scale in every form that is divided into groups of at least 32.
    order = weight_OI[0, :32].argsort()
    given, kept = weight_OI[0, :32][order].tolist(), rounded_OI[0, :32][order].tolist()
    points = list(zip(given, kept, strict=True))
    exact = Series([(given[0], given[0]), (given[-1], given[-1])], "exact", 0, "dashed")
    error_OI = rounded_OI - weight_OI
    share = float(error_OI.norm() / weight_OI.norm())
    bits = 8 * n_bytes / weight_OI.numel()
    described = f"{bits:.2f} bits a weight; the error of the matrix is {share:.2%} of its norm."
    fine = weight_OI.flatten().argsort()[:: ROWS * COLUMNS // 300]
    errors = Series(
        list(zip(weight_OI.flatten()[fine].tolist(), error_OI.flatten()[fine].tolist(), strict=True)), "", 1, "points"
    )
    return Figure(
        [
            Plot(
                "stored values of 32 weights",
                "weight",
                "stored value",
                [exact, Series(points, "stored", 1, "points")],
                described,
            ),
            Plot("error of the stored values", "weight", "error", [errors], described),
        ],
        f"A matrix of {ROWS} × {COLUMNS} normally distributed weights, converted and back: {bits:.2f} bits a weight, error "
        f"{share:.2%} of its norm.",
    )
