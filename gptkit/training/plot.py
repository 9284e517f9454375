"""Plots of the losses of a training. Imports matplotlib, so import this late."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gptkit.core.atomic import atomic_file

__all__ = ["NotebookFigure", "draw_losses", "loss_figure"]

Point = tuple[int, float]
"""A step and a loss."""

_TRAIN, _VALIDATION, _INK, _FAINT = "#4C72B0", "#DD6B20", "#2D3748", "#E2E8F0"


class NotebookFigure(Figure):
    """Figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


def loss_figure(train: Sequence[Point], validation: Sequence[Point], *, title: str = "") -> Figure:
    """Return a figure of the training and the validation loss, each as steps and losses."""
    figure = NotebookFigure(figsize=(8, 4.5), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for points, label, color, style in (
        (train, "training", _TRAIN, {"linewidth": 1.4, "alpha": 0.9}),
        (validation, "validation", _VALIDATION, {"linewidth": 2.0, "marker": "o", "markersize": 3.5}),
    ):
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, label=f"{label}  (last {losses[-1]:.3f})", color=color, **style)
    axes.set_xlabel("step", color=_INK)
    axes.set_ylabel("loss (nats per token)", color=_INK)
    if title:
        axes.set_title(title, loc="left", color=_INK, fontweight="bold")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_axisbelow(True)
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.tick_params(colors=_INK, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    _clip_initial_drop(axes, [loss for _, loss in (*train, *validation)])
    if train or validation:
        axes.legend(frameon=False, labelcolor=_INK)
    return figure


def draw_losses(metrics: Sequence[Mapping[str, Any]], picture: Path, *, title: str = "") -> None:
    """Write a PNG of the training and the validation loss.

    Args:
        metrics: the lines of metrics.jsonl, in order.
        picture: the file; replaced atomically.
        title: the title of the figure.
    """
    train = [(int(row["step"]), row["loss"]) for row in metrics if "loss" in row]
    validation = [(int(row["step"]), row["validation_loss"]) for row in metrics if "validation_loss" in row]
    figure = loss_figure(train, validation, title=title)
    with atomic_file(picture) as stream:
        figure.savefig(stream, format="png", facecolor="white")


def _clip_initial_drop(axes: Any, losses: Sequence[float]) -> None:
    """Set a logarithmic axis if the losses span more than a factor of three."""
    if len(losses) > 1 and min(losses) > 0 and max(losses) > 3 * min(losses):
        axes.set_yscale("log")
        from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 3, 4, 5, 6, 8)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_locator(NullLocator())
