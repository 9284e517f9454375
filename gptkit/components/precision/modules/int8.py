"""Matrices of 8-bit integers with one scale per row.

Shapes: O rows of a matrix (outputs), I columns (inputs), M rows of inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.nn.packed import PackedMatrix, most_rows
from gptkit.ops.compensated_rounding import compensated_rounding

__all__ = ["Int8Matrix", "calibrate", "quantize"]

MOST_ROWS = 16
"""Rows of inputs up to which the product of integers is faster: its time is proportional to their number."""

COLUMNS = 32
"""The kernel reads this many columns at a time, and beyond the end of a matrix with fewer."""

ALIGNMENT = 64
"""Alignment in bytes that the kernel needs: tensors that are mapped from a file may have none, and end the process."""

CHUNK = 1 << 21
"""Number of elements that are converted at once, so that they stay in the cache."""


def quantize(weight_OI: Tensor) -> dict[str, Tensor]:
    """Return integers and scales of a matrix."""
    values = torch.empty(weight_OI.shape, dtype=torch.int8, device=weight_OI.device)
    scale_O = (
        rounded_up(weight_OI.abs().amax(1).float() / 127) if weight_OI.shape[1] else weight_OI.new_zeros(len(weight_OI))
    )
    scale_O = torch.where(scale_O > 0, scale_O, 1.0)
    n_chunk = max(1, CHUNK // max(1, weight_OI.shape[1]))
    for first in range(0, len(weight_OI), n_chunk):
        part = slice(first, first + n_chunk)
        values[part] = torch.div(weight_OI[part].float(), scale_O[part, None]).round_().clamp_(-127, 127)
    return {"values": values, "scale": scale_O.bfloat16()}


def calibrate(weight_OI: Tensor, moments_II: Tensor) -> dict[str, Tensor]:
    """Return integers and scales of a matrix, whose errors compensate one another for inputs with these second moments."""
    stored = quantize(weight_OI)
    scale_O = stored["scale"].float()

    def nearest(numbers_O: Tensor, column: int) -> Tensor:
        integers_O = torch.div(numbers_O, scale_O).round_().clamp_(-127, 127)
        stored["values"][:, column] = integers_O.to(torch.int8)
        return integers_O.mul_(scale_O)

    compensated_rounding(weight_OI.float(), moments_II, nearest)
    return stored


def rounded_up(numbers: Tensor) -> Tensor:
    """Round positive numbers in fp32 to the next number of bf16 that is not smaller."""
    return ((numbers.view(torch.int32) + 0xFFFF) & -0x10000).view(torch.float32)


class Int8Matrix(PackedMatrix):
    """A matrix of 8-bit integers."""

    values: Tensor
    scale: Tensor

    def __init__(self, values_OI: Tensor, scale_O: Tensor, dtype: torch.dtype) -> None:
        super().__init__(values_OI.shape[0], values_OI.shape[1], dtype)
        self.padding = -self.n_columns % COLUMNS
        values_OI = F.pad(values_OI, (0, self.padding)) if self.padding else values_OI.contiguous()
        if values_OI.data_ptr() % ALIGNMENT:
            values_OI = values_OI.clone()
        self.register_buffer("values", values_OI, persistent=False)
        self.register_buffer("scale", scale_O.to(dtype), persistent=False)

    def multiply(self, x: Tensor, bias_O: Tensor | None = None) -> Tensor:
        if self.padding:
            x = F.pad(x, (0, self.padding))
        x_MI = x.reshape(-1, x.shape[-1])
        if 0 < x_MI.shape[0] <= most_rows(MOST_ROWS) and x.device.type == "cpu":
            y_MO = torch._weight_int8pack_mm(x_MI.contiguous(), self.values, self.scale)
        else:
            y_MO = self._by_chunks(x_MI)
        y = y_MO.view(*x.shape[:-1], self.n_rows)
        return y if bias_O is None else y + bias_O

    def _by_chunks(self, x_MI: Tensor) -> Tensor:
        """Multiply with the integers as numbers of the dtype, which are exact, and then with the scales."""
        n_chunk = max(1, CHUNK // max(1, self.values.shape[1]))
        if torch.compiler.is_compiling() or self.n_rows <= n_chunk or x_MI.device.type != "cpu":
            return F.linear(x_MI, self.values.to(self.dtype)) * self.scale
        y_MO = x_MI.new_empty(x_MI.shape[0], self.n_rows)
        for first in range(0, self.n_rows, n_chunk):
            part = slice(first, min(first + n_chunk, self.n_rows))
            torch.mul(F.linear(x_MI, self.values[part].to(self.dtype)), self.scale[part], out=y_MO[:, part])
        return y_MO

    def dense(self) -> Tensor:
        return self.values[:, : self.n_columns].to(self.dtype) * self.scale[:, None]

    def rows(self, ids: Tensor) -> Tensor:
        chosen = F.embedding(ids, self.values)[..., : self.n_columns]
        return chosen.to(self.dtype) * self.scale[ids][..., None]
