"""Norms: vectors of different sizes, before and after."""

from __future__ import annotations

import torch

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first

__all__ = ["draw"]

DIM = 24
_SCALES = ((0.3, 0.0), (1.0, 0.0), (2.0, 2.5))
"""Standard deviation and mean of each vector's features."""


@torch.no_grad()
def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the features of three vectors, before and after the norm."""
    module = first(cls, registry).fresh(dim=DIM).eval()
    generator = torch.Generator().manual_seed(3)
    rows = torch.stack([torch.randn(DIM, generator=generator) * spread + mean for spread, mean in _SCALES])
    panels = []
    for title, values in (("before", rows), ("after", module(rows))):
        series = [
            Series(list(enumerate(row.tolist())), f"rms {row.square().mean().sqrt():.2f}, mean {row.mean():.2f}", index + 1)
            for index, row in enumerate(values)
        ]
        described = "; ".join(f"vector {index + 1}: {each.label}" for index, each in enumerate(series))
        panels.append(Plot(title, "feature", "value", series, described))
    return Figure(panels, f"Three vectors of {DIM} features, before and after the norm with its initial weights.")
