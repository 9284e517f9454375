"""Initializers: histograms of the values for each role."""

from __future__ import annotations

from typing import cast

import torch

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first
from gptkit.kinds.context import BuildContext, ParameterInfo
from gptkit.kinds.initializer import InitializerSpec
from gptkit.nn.initial import Role

__all__ = ["draw"]

WIDTH, LAYERS, BINS = 256, 12, 48
_ROLES: tuple[tuple[Role, str], ...] = (
    ("weight", "projection"),
    ("output", "output projection"),
    ("embedding", "table"),
)


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the density of the values of a matrix in each role."""
    spec = cast("InitializerSpec", first(cls, registry).spec)
    info = ParameterInfo("blocks.0.attention.output.weight", 0)
    context = BuildContext(WIDTH, 512, LAYERS, 1024, parameter=info, registry=registry)
    filled = {
        name: spec.fill(role, torch.Size((WIDTH, WIDTH)), torch.Generator().manual_seed(index), context).flatten()
        for index, (role, name) in enumerate(_ROLES)
    }
    reach = 3.2 * max(float(values.std()) for values in filled.values())
    edges = torch.linspace(-reach, reach, BINS + 1)
    centers = ((edges[1:] + edges[:-1]) / 2).tolist()
    series = []
    for index, (name, values) in enumerate(filled.items()):
        density = torch.histc(values, BINS, -reach, reach) / (len(values) * 2 * reach / BINS)
        points = list(zip(centers, density.tolist(), strict=True))
        form = "area" if index == 0 else "line"
        series.append(Series(points, f"{name}: std {values.std():.2g}", index + 1, form))  # type: ignore[arg-type]
    described = "; ".join(each.label for each in series)
    plot = Plot("distribution of the initial values", "value", "density", series, described)
    return Figure([plot], f"A matrix of {WIDTH} × {WIDTH} in each role, in a model of width {WIDTH} with {LAYERS} layers.")
