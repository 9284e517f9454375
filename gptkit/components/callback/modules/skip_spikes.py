"""Runtime part of callback `skip-spikes`."""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gptkit.core.errors import TrainingError
from gptkit.kinds.callback import Callback

if TYPE_CHECKING:
    from gptkit.components.callback.skip_spikes import SkipSpikesSpec

__all__ = ["SkipSpikes"]

_log = logging.getLogger("gptkit")


class SkipSpikes(Callback):
    """Runtime part of `SkipSpikesSpec`."""

    def __init__(self, spec: SkipSpikesSpec) -> None:
        self.spec = spec
        self._losses: deque[float] = deque(maxlen=spec.window)
        self._norms: deque[float] = deque(maxlen=spec.window)
        self._in_a_row = 0
        self._skipped = 0

    def accepts(self, step: int, loss: float, norm: float) -> bool:
        if loss == norm == 0:
            return True  # a batch without targets, beside which every other one would be a spike
        why = self._reason("the loss", loss, self._losses) or self._reason("the gradient norm", norm, self._norms)
        if why is None:
            self._losses.append(loss)
            self._norms.append(norm)
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        self._skipped += 1
        if self._in_a_row > self.spec.limit:
            raise TrainingError(
                f"{self._in_a_row} steps in a row would be skipped, the last one step {step + 1}: {why}",
                hint="Lower training.optimizer.learning_rate, give the schedule more warmup_steps, or raise `limit` of the "
                "callback skip-spikes.",
            )
        _log.warning("step %d is skipped: %s", step + 1, why)
        return False

    def measure(self, step: int) -> Mapping[str, float]:
        return {"spikes/skipped": float(self._skipped)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "in_a_row": self._in_a_row,
            "skipped": self._skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._losses.extend(state["losses"])
        self._norms.extend(state["norms"])
        self._in_a_row, self._skipped = state["in_a_row"], state["skipped"]

    def _reason(self, what: str, value: float, history: deque[float]) -> str | None:
        """Return why a value is a spike, or None."""
        if not math.isfinite(value):
            return f"{what} is {value}"
        if len(history) < min(self.spec.warmup_steps, self.spec.window):
            return None
        limit = statistics.fmean(history) + self.spec.sigma * statistics.pstdev(history)
        return f"{what} is {value:.4g}, above {limit:.4g}" if value > limit else None
