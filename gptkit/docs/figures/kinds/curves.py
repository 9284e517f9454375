"""Activations: the curve, and its derivative."""

from __future__ import annotations

import torch

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first

__all__ = ["draw"]


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the activation and its derivative from −4 to 4."""
    subject = first(cls, registry)
    module = subject.fresh().eval()
    x_N = torch.linspace(-4, 4, 161, requires_grad=True)
    y_N = module(x_N)
    (slope_N,) = torch.autograd.grad(y_N.sum(), x_N, materialize_grads=True)
    across = x_N.detach().tolist()
    curve = Series(list(zip(across, y_N.detach().tolist(), strict=True)), "f(x)", 1)
    slope = Series(list(zip(across, slope_N.tolist(), strict=True)), "f′(x)", 2, "dashed")
    low, high = float(y_N.detach().min()), float(y_N.detach().max())
    described = f"f(x) from {low:.2f} to {high:.2f}; its derivative from {slope_N.min():.2f} to {slope_N.max():.2f}."
    plot = Plot("activation and derivative", "x", "", [slope, curve], described)
    return Figure([plot], "Values and gradients of the module for 161 inputs from −4 to 4.")
