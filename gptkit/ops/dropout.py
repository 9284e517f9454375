"""Dropout as a function, without overhead when it is inactive, and fast on a CPU.

On a CPU, torch draws the elements of a mask one after the other, which takes longer than the matrix products around it. Here
the random numbers of a mask are the exclusive or of two sections of a fixed table of random bits, at positions drawn from
torch's generator: one vectorized pass. A mask is stored as these positions and computed again in the backward pass. It
depends on the state of torch's generator and on the shape, not on the number of threads.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["DropoutMask", "dropout"]

TABLE_WORDS = 1 << 19
"""Size of the table in words of 64 bits: 4 MB."""

SECTION_WORDS = 1 << 16
"""Maximum number of words that are combined at once; they fit into the CPU's cache."""

_LANES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Zero each element with `probability`, and divide the others by 1 - probability; x itself outside training.

    A function of a number and a flag, not a module: a cached decode step calls it several times per layer, and a module
    that returns its input takes as long as a small kernel.

    Args:
        x: any shape.
        probability: 0 ≤ p ≤ 1.
        training: the module's flag of the same name.

    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
    """
    if not (training and probability):
        return x
    if x.device.type != "cpu" or type(x) is not Tensor or torch.compiler.is_compiling() or probability >= 1:
        return F.dropout(x, probability)
    result: Tensor = _Dropout.apply(x, probability)  # type: ignore[no-untyped-call]
    return result


class DropoutMask:
    """Random mask of a number of elements on the CPU; drawn on creation, computed whenever it is applied.

    An element is kept with probability 1 - p, rounded to a multiple of 2⁻¹⁶ or finer. The masks of two calls are
    independent for each pair of elements, unless both positions in the table are equal.

    Args:
        n_elements: number of elements.
        probability: 0 < p < 1.
        dtype: dtype of the elements that the mask is applied to.
    """

    def __init__(self, n_elements: int, probability: float, dtype: torch.dtype) -> None:
        self._lanes = _LANES[dtype.itemsize]
        bits = 8 * dtype.itemsize
        # Lanes are signed numbers, uniformly distributed; those below the threshold are dropped.
        self._threshold = min(round(probability * 2**bits), 2**bits - 1) - 2 ** (bits - 1)
        self._section = SECTION_WORDS * 8 // dtype.itemsize
        n_sections = -(-n_elements // self._section)
        self._positions = torch.randint(TABLE_WORDS - SECTION_WORDS + 1, (n_sections, 2)).tolist()

    def apply_(self, x: Tensor, *others: Tensor) -> Tensor:
        """Zero the dropped elements in place and return x; `others` of the same size get the same mask.

        Args:
            x, others: contiguous.
        """
        flat = [each.view(-1).view(self._lanes) for each in (x, *others)]
        n_elements = flat[0].shape[0]
        table = _table()
        words = torch.empty(min(SECTION_WORDS, -(-n_elements * x.element_size() // 8)), dtype=torch.int64)
        keep = torch.empty(words.shape[0] * 8 // x.element_size(), dtype=self._lanes)
        for index, (first, second) in enumerate(self._positions):
            start = index * self._section
            length = min(self._section, n_elements - start)
            n_words = -(-length * x.element_size() // 8)
            torch.bitwise_xor(table[first : first + n_words], table[second : second + n_words], out=words[:n_words])
            torch.ge(words.view(self._lanes)[:length], self._threshold, out=keep[:length])
            for each in flat:
                # The product of an element's bits, read as an integer, with 0 or 1: a pass without conversions.
                each[start : start + length] *= keep[:length]
        return x


@functools.cache
def _table() -> Tensor:
    with torch.inference_mode(False):
        return torch.empty(TABLE_WORDS, dtype=torch.int64).random_(
            -(2**63), None, generator=torch.Generator().manual_seed(0x5EED)
        )


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        ctx.scale = 1 / (1 - probability)
        ctx.mask = DropoutMask(x.numel(), probability, x.dtype)
        return _dropped(x, ctx.mask, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _dropped(grad, ctx.mask, ctx.scale), None


def _dropped(x: Tensor, mask: DropoutMask, scale: float) -> Tensor:
    scaled = torch.empty_like(x, memory_format=torch.contiguous_format)
    return mask.apply_(torch.mul(x, scale, out=scaled))
