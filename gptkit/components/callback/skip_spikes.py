"""Callback `skip-spikes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.callback import Callback, CallbackSpec

__all__ = ["SkipSpikesSpec"]


class SkipSpikesSpec(CallbackSpec):
    """Skips steps whose loss or gradient norm is far above that of the steps before it, or not finite.

    Formula:
        skip step t if loss_t > mean + sigma · std or norm_t > mean + sigma · std,
        with mean and standard deviation of the last `window` steps that were not skipped

    Paper:
        https://arxiv.org/abs/2501.00656

    Notes:
        A skipped step changes no trained weight and no state of the optimizer, and its data is not used again. It is
        reported, and counted in the metric `spikes/skipped`. With this callback every step waits for the
        device, which costs nothing on a CPU.
    """

    formula: ClassVar[str] = r"""
        \text{skip } t \iff \text{loss}_t > \mu + k \sigma \text{ or } \|g_t\| > \mu_g + k \sigma_g
    """

    name: Literal["skip-spikes"] = "skip-spikes"
    sigma: float = Field(6.0, gt=0, description="Number of standard deviations above the mean from which a step is skipped.")
    window: int = Field(128, ge=2, description="Number of steps that mean and standard deviation are computed from.")
    warmup_steps: int = Field(
        20, ge=2, description="Number of steps that are recorded before one is skipped, unless it is not finite."
    )
    limit: int = Field(
        10, ge=1, description="Number of steps that may be skipped in a row; with more, the training ends with an error."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"sigma": 3.0, "window": 16, "warmup_steps": 4, "limit": 2})

    def build(self) -> Callback:
        from gptkit.components.callback.modules.skip_spikes import SkipSpikes

        return SkipSpikes(self)
