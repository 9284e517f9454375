"""Kind `rotary-scaling`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RotaryScalingSpec"]


class RotaryScalingSpec(Component):
    """Scaling of the frequencies of rotary positions, for texts longer than those in training.

    Frequencies are in radians per token, (d_rotary / 2,) fp32, the highest first: base^(-2i / d_rotary); 0 for a
    pair that does not rotate.

    Declared capabilities:
        depends_on_length: `at_length` changes the frequencies with the length of the text.
    """

    kind: ClassVar[str] = "rotary-scaling"
    depends_on_length: ClassVar[bool] = False

    @abstractmethod
    def frequencies(self, base: float, d_rotary: int, context: BuildContext) -> Tensor:
        """Return the frequencies for texts within the trained length."""

    def at_length(self, base: float, d_rotary: int, context: BuildContext, length_B: Tensor) -> Tensor:
        """Return the frequencies for texts of given lengths in tokens, (B, d_rotary / 2); only if `depends_on_length`."""
        raise NotImplementedError(f"rotary scaling {self.component_name()!r} declares depends_on_length without at_length")

    def pair_problems(self, d_rotary: int) -> Iterator[str]:
        """Yield the reasons why this number of rotated features is not supported, with the remedy; none by default."""
        yield from ()

    def changes_between(self, old: int, new: int, context: BuildContext) -> bool:
        """Return whether `at_length` differs for texts of `old` and of `new` tokens."""
        return False

    def amplitude(self, context: BuildContext) -> float:
        """Return the factor of sine and cosine; the scores of rotated features are multiplied by its square."""
        return 1.0

    @staticmethod
    def plain(base: float, d_rotary: int) -> Tensor:
        """Return the unscaled frequencies: base^(-2i / d_rotary)."""
        import torch

        return 1.0 / (base ** (torch.arange(0, d_rotary, 2, dtype=torch.int64).float() / d_rotary))

    def written(self, context: WritingContext, *, base: float, d_rotary: int) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its call "scale" is the scaled frequencies for $frequencies.
        """
        return None
