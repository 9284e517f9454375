"""Optimizers: the loss of a small problem over the steps, and the path of two of its parameters.

Shapes: O rows, I columns.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first
from gptkit.kinds.optimizer import OptimizerSpec

__all__ = ["draw"]

STEPS, SIZE = 120, 8


class _Valley(nn.Module):
    """Least squares of a matrix whose columns have curvatures from 1 to 1/50."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(SIZE, SIZE, generator=generator))
        self.curvature_I = torch.logspace(0, -math.log10(50), SIZE)

    def loss(self) -> Tensor:
        return (self.weight.square() * self.curvature_I).sum() / 2


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the loss of each step for three learning rates, and the path of a steep and a flat parameter."""
    spec = cast("OptimizerSpec", first(cls, registry).spec)
    series, paths = [], []
    for index, factor in enumerate((1.0, 10.0, 100.0)):
        rate = spec.learning_rate * factor
        losses, path = _run(spec.replace(learning_rate=rate))
        if not all(map(math.isfinite, losses)):
            continue
        series.append(Series(list(enumerate(losses)), f"rate {rate:.3g}", index + 1))
        paths.append(Series(path, f"rate {rate:.3g}", index + 1))
    described = "; ".join(f"{each.label}: from {each.points[0][1]:.3g} to {each.points[-1][1]:.3g}" for each in series)
    goal = Series([(0.0, 0.0)], "minimum", 4, "points")
    panels = [
        Plot("loss over steps", "step", "loss", series, described, log_y=True),
        Plot("path of two parameters", "steep parameter", "flat parameter", [*paths, goal], described),
    ]
    caption = (
        f"{STEPS} steps on a quadratic loss of a matrix of {SIZE} × {SIZE}, whose columns have curvatures from 1 to 1/50, "
        "with the default learning rate, ten times and a hundred times as much."
    )
    return Figure(panels, caption)


def _run(spec: OptimizerSpec) -> tuple[list[float], list[tuple[float, float]]]:
    problem = _Valley()
    optimizer = spec.build(problem)
    losses, path = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = problem.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        path.append((float(problem.weight[0, 0].detach()), float(problem.weight[0, -1].detach())))
        optimizer.step()
    return losses, path
