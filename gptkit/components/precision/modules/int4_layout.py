"""The order in which torch's product with 4-bit weights on the CPU expects them, and back.

The rows are split into blocks, whose size depends on the CPU's vectors, and a byte of a block holds one column of two rows.
Packing a matrix whose elements are the numbers of their rows shows which two.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Layout", "halves", "pack"]

_ROWS = {"AVX512": 64, "AVX2": 32}
"""Rows of a block by the CPU's capability; 16 for any other."""


def pack(q_OI: Tensor) -> Tensor:
    """Return integers of 0 … 15, whose number of rows is a multiple of 16, in the order of the product."""
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q_OI.int(), 1)
    return packed


@functools.cache
def _row_order(n_rows: int) -> tuple[int, ...]:
    """Return for each row of a block its place among the low halves of a column's bytes followed by the high halves."""
    rows = torch.arange(n_rows, dtype=torch.int32)[:, None].expand(-1, 2)
    bytes_of = [pack(part.contiguous()).view(2, n_rows // 2) for part in (rows % 16, rows // 16)]
    low, high = (torch.cat((each & 15, each >> 4), 1).int() for each in bytes_of)
    numbers = low + 16 * high
    if not (torch.equal(numbers[0], numbers[1]) and torch.equal(numbers[0].sort().values, rows[:, 0])):
        raise RuntimeError(f"torch {torch.__version__} packs 4-bit weights in an unsupported order on this CPU")
    return tuple(numbers[0].argsort().tolist())


@dataclass(frozen=True)
class Layout:
    """The blocks of a packed matrix.

    Attributes:
        n_columns: number of columns.
        blocks: number of blocks, rows of each, and their order; first those of full size, then the rest.
    """

    n_columns: int
    blocks: tuple[tuple[int, int, tuple[int, ...]], ...]

    @classmethod
    def of(cls, n_rows: int, n_columns: int) -> Layout:
        """Return the layout of a packed matrix on this CPU."""
        size = _ROWS.get(torch.backends.cpu.get_cpu_capability(), 16)
        blocks = ((n_rows // size, size), (1, n_rows % size))
        return cls(n_columns, tuple((count, rows, _row_order(rows)) for count, rows in blocks if count * rows))

    def split(self, packed: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield blocks of one size, bytes (blocks, I, rows / 2), and the place of each row among the halves of a column."""
        flat, first = packed.flatten(), 0
        for count, rows, order in self.blocks:
            n_bytes = count * rows * self.n_columns // 2
            yield flat[first : first + n_bytes].view(count, self.n_columns, rows // 2), torch.tensor(order)
            first += n_bytes

    def unpack(self, packed: Tensor) -> Tensor:
        """Return the integers (O, I) of a packed matrix."""
        parts = [halves(block).transpose(1, 2)[:, order].flatten(0, 1) for block, order in self.split(packed)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def halves(block: Tensor) -> Tensor:
    """Return the low halves of bytes followed by the high ones, along the last dimension."""
    return torch.cat((block & 15, block >> 4), -1)
