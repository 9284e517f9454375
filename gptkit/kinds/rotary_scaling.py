"""Kind `rotary-scaling`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RotaryScalingSpec"]


class RotaryScalingSpec(Component):
    """Changes the frequencies of rotary positions, so that a model reads texts longer than it was trained on.

    Frequencies are radians a token, (d_rotary / 2,) fp32, the fastest first: base^(-2i / d_rotary).

    Declared capabilities:
        depends_on_length: `at_length` changes the frequencies with the length of the text.
    """

    kind: ClassVar[str] = "rotary-scaling"
    depends_on_length: ClassVar[bool] = False

    @abstractmethod
    def frequencies(self, base: float, d_rotary: int, context: BuildContext) -> Tensor:
        """The frequencies that hold for texts within the trained length."""

    def at_length(self, base: float, d_rotary: int, context: BuildContext, length_B: Tensor) -> Tensor:
        """The frequencies for texts of given lengths in tokens, (B, d_rotary / 2); only if `depends_on_length`."""
        raise NotImplementedError

    def pair_problems(self, d_rotary: int) -> Iterator[str]:
        """Why heads with so many rotated features cannot be scaled, as sentences with the remedy; none by default."""
        yield from ()

    def changes_between(self, old: int, new: int, context: BuildContext) -> bool:
        """Whether `at_length` differs for texts of `old` and of `new` tokens."""
        return False

    def amplitude(self, context: BuildContext) -> float:
        """Factor of sine and cosine, and so, squared, of the scores of rotated features."""
        return 1.0

    @staticmethod
    def plain(base: float, d_rotary: int) -> Tensor:
        """Unscaled frequencies: base^(-2i / d_rotary)."""
        import torch

        return 1.0 / (base ** (torch.arange(0, d_rotary, 2, dtype=torch.int64).float() / d_rotary))
