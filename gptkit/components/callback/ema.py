"""Callback `ema`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.callback import Callback, CallbackSpec

__all__ = ["EMASpec"]


class EMASpec(CallbackSpec):
    """Exponential moving average of the weights, with which the run is evaluated, sampled, loaded and exported.

    Formula:
        a ← d_t·a + (1 − d_t)·θ    after step t, for every trainable parameter θ; initially a = θ
        d_t = decay, or with warmup min(decay, (1 + t) / (10 + t))

    Paper:
        https://epubs.siam.org/doi/10.1137/0330046

    Notes:
        Training continues with the weights that are not averaged, which are in the checkpoint too. Buffers are not averaged.
    """

    formula: ClassVar[str] = r"""
        a \leftarrow d_t a + (1 - d_t) \theta \qquad d_t = \min\left(d, \frac{1 + t}{10 + t}\right)
    """

    name: Literal["ema"] = "ema"
    decay: float = Field(0.999, ge=0, lt=1, description="Decay of the average at each update.")
    warmup: bool = Field(True, description="Start with a smaller decay, which reduces the influence of early weights.")
    every: int = Field(1, ge=1, description="Number of steps between two updates.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"decay": 0.9, "warmup": False, "every": 2})

    def build(self) -> Callback:
        from gptkit.components.callback.modules.ema import EMA

        return EMA(self.decay, warmup=self.warmup, every=self.every)
