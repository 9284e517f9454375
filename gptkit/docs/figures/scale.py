"""Axes: from values to coordinates, and round values for ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scale"]


@dataclass(frozen=True)
class Scale:
    """Linear or logarithmic map of values to coordinates.

    Attributes:
        low: the value at `begin`.
        high: the value at `end`.
        begin: a coordinate.
        end: a coordinate; less than `begin` for a vertical axis.
        log: whether equal ratios of values are equally far apart.
    """

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    @classmethod
    def around(
        cls, values: Sequence[float], begin: float, end: float, *, log: bool = False, zero: bool = False, margin: float = 0.0
    ) -> Scale:
        """Return the scale that holds finite values; with `zero`, also 0; with a margin, a fraction of the range more."""
        held = [value for value in values if math.isfinite(value) and (value > 0 or not log)] or [1.0]
        low, high = min(held), max(held)
        if log:
            return cls(low / 1.2, high * 1.2, begin, end, log=True)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high - low < 1e-9 * max(abs(high), 1e-6):
            low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
        room = (high - low) * margin
        low, high = (low if zero and low == 0 else low - room), (high if zero and high == 0 else high + room)
        return cls(low, high, begin, end)

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self, count: int = 4) -> list[float]:
        """Return about `count` round values within the scale."""
        if self.log:
            return self._powers(count)
        rough = (self.high - self.low) / max(count, 1)
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(each * magnitude for each in (1, 2, 2.5, 5, 10) if each * magnitude >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 10) + 0.0 for index in range(first, last + 1)]

    def _powers(self, count: int) -> list[float]:
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        if last - first < 1:
            return [value for value in (self.low * 1.2, self.high / 1.2) if value]
        stride = max(1, round((last - first) / count))
        return [10.0**exponent for exponent in range(first, last + 1, stride)]
