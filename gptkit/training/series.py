"""Metrics of a training of any length, in bounded memory."""

from __future__ import annotations

__all__ = ["Series"]


class Series:
    """Points of one metric; with many points, means over equal numbers of successive ones.

    Args:
        limit: maximum number of points.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = max(2, limit)
        self._each = 1
        self._points: list[tuple[int, float]] = []
        self._pending: list[tuple[int, float]] = []

    def add(self, step: int, value: float) -> None:
        """Add a point."""
        self._pending.append((step, value))
        if len(self._pending) < self._each:
            return
        self._points.append(_mean(self._pending))
        self._pending = []
        if len(self._points) > self._limit:
            self._points, self._pending = self._halved()
            self._each *= 2

    def points(self) -> list[tuple[int, float]]:
        """Return the points; the step of a mean is its last one."""
        return self._points + ([_mean(self._pending)] if self._pending else [])

    def _halved(self) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        pairs = [self._points[at : at + 2] for at in range(0, len(self._points) - 1, 2)]
        # An odd point stands for half of the next mean: it is counted again with as many points as follow it.
        rest = self._points[len(pairs) * 2 :] * self._each
        return [_mean(pair) for pair in pairs], rest


def _mean(points: list[tuple[int, float]]) -> tuple[int, float]:
    return points[-1][0], sum(value for _, value in points) / len(points)
