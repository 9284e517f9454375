"""Additions to the projection of a module's input: what several uses of one module compute differently."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["TakesAddition"]


class TakesAddition(ABC):
    """A module whose `forward` accepts a tensor, (B, T, X), that it adds to its projection of the input.

    Attributes:
        has_addition: every call has an addition; it has all features, so the module is not divided (tensor parallelism).
    """

    has_addition: bool = False

    @property
    @abstractmethod
    def addition_widths(self) -> tuple[int, ...]:
        """Features of each part of the projection, in order; X is their sum."""
