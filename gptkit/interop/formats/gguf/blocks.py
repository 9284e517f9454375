"""Quantized blocks of ggml, the tensor library of llama.cpp: types with 32 elements, and the table of all types.

Shapes: N blocks, L elements of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gptkit.interop.formats.gguf.k_blocks import pack_q4_k, pack_q6_k

__all__ = ["BLOCKS", "BlockType", "pack_q4_0", "pack_q8_0"]


@dataclass(frozen=True)
class BlockType:
    """A quantized type.

    Attributes:
        number: the number of the type in files.
        length: elements of a block.
        n_bytes: bytes of a block.
        levels: the largest absolute value of a quantized element, at least.
        pack: function that returns the bytes (N, n_bytes) of blocks (N, L) in fp32.
    """

    number: int
    length: int
    n_bytes: int
    levels: int
    pack: Callable[[Tensor], Tensor]


def pack_q8_0(x_NL: Tensor) -> Tensor:
    """Return blocks of a step in fp16 and 32 signed bytes; halves are rounded away from zero."""
    step_N1 = x_NL.abs().amax(1, keepdim=True) / 127
    scaled_NL = x_NL * _inverse(step_N1)
    whole_NL = scaled_NL.abs().floor()
    rounded_NL = scaled_NL.sign() * (whole_NL + (2 * (scaled_NL.abs() - whole_NL)).floor())
    return torch.cat([step_N1.half().view(torch.uint8), rounded_NL.to(torch.int8).view(torch.uint8)], dim=1)


def pack_q4_0(x_NL: Tensor) -> Tensor:
    """Return blocks of a step in fp16 and 32 elements of 4 bits, whose range begins at the element of largest magnitude."""
    largest_N1 = x_NL.abs().amax(1, keepdim=True)
    index_L = torch.arange(x_NL.shape[1])
    first_N1 = torch.where(x_NL.abs() == largest_N1, index_L, x_NL.shape[1]).amin(1, keepdim=True)
    step_N1 = x_NL.gather(1, first_N1) / -8
    levels_NL = (x_NL * _inverse(step_N1) + 8.5).trunc().clamp(0, 15).to(torch.uint8)
    low, high = levels_NL.chunk(2, dim=1)
    return torch.cat([step_N1.half().view(torch.uint8), low | high << 4], dim=1)


def _inverse(step_N1: Tensor) -> Tensor:
    return torch.where(step_N1 == 0, 0.0, 1 / step_N1)


BLOCKS: Mapping[str, BlockType] = {
    "q4_0": BlockType(2, 32, 18, 8, pack_q4_0),
    "q8_0": BlockType(8, 32, 34, 127, pack_q8_0),
    "q4_k": BlockType(12, 256, 144, 15, pack_q4_k),
    "q6_k": BlockType(14, 256, 210, 31, pack_q6_k),
}
"""By name."""
