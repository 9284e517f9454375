"""Linear projections: the matrix that is applied, against the stored weight.

Shapes: I features in, O features out.
"""

from __future__ import annotations

import torch

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.heat import Heat
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first
from gptkit.testing.subject import stirred

__all__ = ["draw"]

I, O = 32, 12  # noqa: E741


@torch.no_grad()
def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the effective matrix as a heat map, and its elements over those of the weight."""
    module = stirred(first(cls, registry).fresh(d_in=I, d_out=O, bias=False)).eval()
    weight_OI = module.weight.detach()
    # Small inputs in both directions: a projection may transform its input too.
    effective_OI = torch.stack([(module(row) - module(-row)) / 2 for row in torch.eye(I)], dim=1)
    scale = float(effective_OI.abs().max())
    points = list(zip(weight_OI.flatten().tolist(), effective_OI.flatten().tolist(), strict=True))
    count = sum(parameter.numel() for parameter in module.parameters())
    reach = float(weight_OI.abs().max())
    exact = Series([(-reach, -reach), (reach, reach)], "equal", 0, "dashed")
    described = f"{O} × {I} elements, the largest {scale:.2f}; {count} parameters."
    return Figure(
        [
            Heat("matrix that is applied", "feature in", "feature out", effective_OI.tolist(), described),
            Plot(
                "applied over stored elements",
                "stored weight",
                "applied",
                [exact, Series(points, "element", 1, "points")],
                described,
            ),
        ],
        f"A projection from {I} to {O} features with random parameters, read out with unit vectors: {count:,} parameters.",
    )
