"""Callback `window-warmup`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.callback import Callback, CallbackSpec

__all__ = ["WindowWarmupSpec"]


class WindowWarmupSpec(CallbackSpec):
    """Warmup of sliding attention windows to the windows of the model's layers.

    Formula:
        w(t) = w₀ + ⌊(W − w₀) · ⌊k · min(1, t / n)⌋ / k⌋
        at step t, in a layer with a window of W tokens, w₀ = min(initial, W), n = steps and k = stages

    Source:
        https://github.com/KellerJordan/modded-nanogpt

    Notes:
        Layers without a window attend to all earlier tokens from the first step on. The spec does not change, and only
        training steps use the smaller windows: validation, samples and the trained model use those of the spec. Every
        stage has one window, so with `training.compile` the blocks are compiled once per stage.
    """

    formula: ClassVar[str] = r"""
        w(t) = w_0 + \left\lfloor (W - w_0) \frac{\lfloor k \min(1, t / n) \rfloor}{k} \right\rfloor
    """

    name: Literal["window-warmup"] = "window-warmup"
    initial: int = Field(64, ge=1, description="Attention window of the first steps, in tokens.")
    steps: int = Field(100, ge=1, description="Number of warmup steps.")
    stages: int = Field(4, ge=1, le=6, description="Number of times that the window is widened.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"initial": 2, "steps": 4, "stages": 2})

    @property
    def n_warmup_steps(self) -> int:
        return self.steps

    def share(self, step: int) -> float:
        """Return the share of the warmup that is complete, from 0 to 1, in whole stages."""
        return min(self.stages, self.stages * step // self.steps) / self.stages

    def window(self, step: int, full: int) -> int:
        """Return the window at a step of a layer whose own window is `full`."""
        first = min(self.initial, full)
        return first + (full - first) * min(self.stages, self.stages * step // self.steps) // self.stages

    def build(self) -> Callback:
        from gptkit.components.callback.modules.window_warmup import WindowWarmup

        return WindowWarmup(self)
