"""Scalings of rotary positions: the frequencies before and after, and the rotation that they give a long text."""

from __future__ import annotations

from typing import cast

import torch

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first
from gptkit.kinds.rotary_scaling import RotaryScalingSpec

__all__ = ["draw"]

BASE = 10_000.0


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the frequency of each pair of features, and its ratio to the unscaled one."""
    subject = first(cls, registry)
    spec = cast("RotaryScalingSpec", subject.resolved)
    context, width = subject.context, _width(spec)
    plain = RotaryScalingSpec.plain(BASE, width)
    length = 8 * context.context_length
    scaled = spec.frequencies(BASE, width, context)
    if spec.depends_on_length:
        scaled = spec.at_length(BASE, width, context, torch.tensor([length]))[0]
    where = f" for a text of {length:,} tokens" if spec.depends_on_length else ""
    before = Series(list(enumerate(plain.tolist())), "unscaled", 0, "dashed")
    after = Series(list(enumerate(scaled.tolist())), "scaled", 1)
    ratio = Series(list(enumerate((scaled / plain).tolist())), "", 1)
    one = Series([(0, 1.0), (width // 2 - 1, 1.0)], "unscaled", 0, "dashed")
    described = f"The fastest pair is multiplied by {scaled[0] / plain[0]:.3f}, the slowest by {scaled[-1] / plain[-1]:.3f}."
    panels = [
        Plot("frequencies", "pair of features", "radians per token", [before, after], described, log_y=True),
        Plot("scaled relative to unscaled", "pair of features", "ratio", [one, ratio], described),
    ]
    amplitude = spec.amplitude(context)
    caption = f"The frequencies of {width} rotated features with base {BASE:,.0f}{where}."
    if amplitude != 1:
        caption += f" Sines and cosines are multiplied by {amplitude:.4g}."
    return Figure(panels[::-1], caption)


def _width(spec: RotaryScalingSpec) -> int:
    """Return a number of rotated features that the scaling supports, 64 if possible."""
    return next((width for width in (64, 16) if not list(spec.pair_problems(width))), 64)
