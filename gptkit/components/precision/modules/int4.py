"""Matrices of 4-bit integers with a scale and an offset per group of columns.

Shapes: O rows of a matrix (outputs), I columns (inputs), G groups of J columns, M rows of inputs; N packed blocks of R rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.components.precision.modules.int4_layout import Layout, halves, pack
from gptkit.nn.packed import PackedMatrix, most_rows
from gptkit.ops.compensated_rounding import compensated_rounding

__all__ = ["Int4Matrix", "calibrate", "dequantize", "quantize"]

MOST_ROWS = 80
"""Rows of inputs up to which the product of integers is faster: its time is proportional to their number."""

CHUNK = 1 << 18
"""Number of elements that are quantized at once, so that they stay in the cache."""

DEQUANTIZED = 1 << 20
"""Number of elements that are dequantized at once for a product."""

NARROWEST = 2 / 3
"""The narrowest range that is tried, as a share of the range of a group's weights."""


def quantize(
    weight_OI: Tensor, group: int, n_ranges: int, n_fits: int, importance_I: Tensor | None = None
) -> dict[str, Tensor]:
    """Return integers, scales and offsets of a matrix.

    Args:
        group: number of columns of a group; the last one may have fewer.
        n_ranges: number of ranges that are tried.
        n_fits: number of least-squares fits for each.
        importance_I: factor of each column's squared error; equal ones by default.
    """
    n_rows, n_columns = weight_OI.shape
    n_groups = -(-n_columns // group)
    n_filled = n_groups * group - n_columns
    device = weight_OI.device
    values = torch.empty(n_rows, -(-n_columns // 2), dtype=torch.uint8, device=device)
    scale, offset = (torch.empty(n_rows, n_groups, dtype=torch.bfloat16, device=device) for _ in range(2))
    importance = None if importance_I is None else F.pad(importance_I, (0, n_filled)).view(n_groups, group)
    n_chunk = max(1, CHUNK // max(1, n_groups * group))
    for first in range(0, n_rows, n_chunk):
        part = slice(first, first + n_chunk)
        # The last column fills the last group, so that it changes nothing about its range.
        filled = weight_OI[part].float()
        if n_filled:
            filled = torch.cat((filled, filled[:, -1:].expand(-1, n_filled)), 1)
        q_CGJ, scale[part], offset[part] = _best(filled.view(-1, n_groups, group), n_ranges, n_fits, importance)
        values[part] = in_bytes(q_CGJ.flatten(1)[:, :n_columns])
    return {"values": values, "scale": scale, "offset": offset}


def calibrate(weight_OI: Tensor, moments_II: Tensor, group: int, n_ranges: int, n_fits: int) -> dict[str, Tensor]:
    """Return integers, scales and offsets of a matrix whose errors compensate one another for its inputs.

    Args:
        moments_II: the mean of x xᵀ over the inputs.
        group, n_ranges, n_fits: as for `quantize`, which chooses scales and offsets by the squared sizes of the inputs.
    """
    stored = quantize(weight_OI, group, n_ranges, n_fits, moments_II.diagonal())
    scale_GO, offset_GO = (stored[name].float().T.contiguous() for name in ("scale", "offset"))
    divisor_GO = torch.where(scale_GO > 0, scale_GO, 1.0)
    q_OI = torch.empty(weight_OI.shape, dtype=torch.uint8, device=weight_OI.device)

    def nearest(numbers_O: Tensor, column: int) -> Tensor:
        at = column // group
        integers_O = torch.sub(numbers_O, offset_GO[at]).div_(divisor_GO[at]).round_().add_(8).clamp_(0, 15)
        q_OI[:, column] = integers_O.to(torch.uint8)
        return torch.addcmul(offset_GO[at], integers_O.sub_(8), scale_GO[at])

    compensated_rounding(weight_OI.float(), moments_II, nearest)
    return {**stored, "values": in_bytes(q_OI)}


def in_bytes(q_OI: Tensor) -> Tensor:
    """Return integers of 0 … 15 as bytes that hold two columns each, the even one in the low half."""
    bytes_OI = F.pad(q_OI, (0, q_OI.shape[1] % 2)).to(torch.uint8)
    return bytes_OI[:, ::2] | (bytes_OI[:, 1::2] << 4)


def _best(w: Tensor, n_ranges: int, n_fits: int, importance: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return integers (C, G, group), scales and offsets (C, G) with the smallest squared error that was found."""

    def total(numbers: Tensor) -> Tensor:
        return (numbers if importance is None else numbers * importance).sum(-1, keepdim=True)

    low, high = w.aminmax(dim=-1, keepdim=True)
    middle, half = (high + low) / 2, (high - low) / 2
    shares = torch.linspace(1, NARROWEST, n_ranges).tolist()
    best: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
    count = total(torch.ones_like(w[:1])).clamp_min(1e-30)
    mean = total(w) / count
    for share in shares:
        scale = half * (2 * share / 15)
        offset = middle + scale / 2
        for fit in range(n_fits + 1):
            squares, integers, *line = _rounded(w, scale, offset)
            candidate = (total(squares), integers, line[0], line[1])
            best = candidate if best is None else _better(best, candidate)
            if fit < n_fits:
                # The least-squares line through the weights as a function of their integers.
                steps = candidate[1] - 8
                steps_mean = total(steps) / count
                centred = steps - steps_mean
                variance = total(centred.square())
                slope = total(centred * w) / variance.clamp_min(1e-30)
                scale = torch.where(variance > 1e-12 * count, slope, candidate[2])
                offset = mean - scale * steps_mean
    assert best is not None
    _, integers, scale, offset = best
    return integers, scale[..., 0].bfloat16(), offset[..., 0].bfloat16()


def _rounded(w: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the squared errors, and the integers for a scale and an offset, both rounded to bf16 first."""
    scale, offset = scale.bfloat16().float(), offset.bfloat16().float()
    divisor = torch.where(scale > 0, scale, 1.0)
    integers = torch.sub(w, offset).div_(divisor).round_().add_(8).clamp_(0, 15)
    return torch.addcmul(offset - 8 * scale, integers, scale).sub_(w).square_(), integers, scale, offset


def _better(
    one: tuple[Tensor, Tensor, Tensor, Tensor], other: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    taken = other[0] < one[0]
    error, integers, scale, offset = (torch.where(taken, new, old) for old, new in zip(one, other, strict=True))
    return error, integers, scale, offset


def dequantize(stored: Mapping[str, Tensor], n_columns: int, group: int) -> Tensor:
    """Return the matrix in fp32."""
    scale, offset = (stored[name].float().repeat_interleave(group, 1)[:, :n_columns] for name in ("scale", "offset"))
    return torch.addcmul(offset, integers_of(stored["values"], n_columns).float() - 8, scale)


def integers_of(values: Tensor, n_columns: int) -> Tensor:
    """Return the integers (O, I) of bytes that hold two columns each."""
    return torch.stack((values & 15, values >> 4), -1).flatten(1)[:, :n_columns]


class Int4Matrix(PackedMatrix):
    """A matrix of 4-bit integers on the CPU, in the order of torch's product with such weights.

    Args:
        stored: the tensors of `quantize`.
        n_columns: number of columns of the matrix.
        group: number of columns of a group.
        dtype: the dtype of inputs and outputs.
        table: the same matrix in the order of its rows, if rows are looked up.
    """

    integers: Tensor
    scales: Tensor

    def __init__(
        self,
        stored: Mapping[str, Tensor],
        n_columns: int,
        group: int,
        dtype: torch.dtype,
        table: PackedMatrix | None = None,
    ) -> None:
        super().__init__(len(stored["values"]), n_columns, dtype)
        self.table = table
        self.group = group
        # The product takes groups as a whole, and multiples of 16 rows.
        self.columns_added = -n_columns % group
        self.rows_added = -self.n_rows % 16
        added = (0, self.columns_added, 0, self.rows_added)
        q_OI = F.pad(integers_of(stored["values"], n_columns), added, value=8)
        self.layout = Layout.of(*q_OI.shape)
        self.register_buffer("integers", pack(q_OI), persistent=False)
        pairs_OG2 = torch.stack((stored["scale"], stored["offset"]), -1).to(dtype)
        pairs_GO2 = F.pad(pairs_OG2, (0, 0, 0, 0, 0, self.rows_added)).transpose(0, 1).contiguous()
        self.register_buffer("scales", pairs_GO2, persistent=False)

    def multiply(self, x: Tensor, bias_O: Tensor | None = None) -> Tensor:
        if self.columns_added:
            x = F.pad(x, (0, self.columns_added))
        x_MI = x.reshape(-1, x.shape[-1])
        if 0 < x_MI.shape[0] <= most_rows(MOST_ROWS):
            y_MO: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                x_MI.contiguous(), self.integers, self.group, self.scales
            )
        else:
            y_MO = self._by_blocks(x_MI)
        y = (y_MO[:, : self.n_rows] if self.rows_added else y_MO).reshape(*x.shape[:-1], self.n_rows)
        return y if bias_O is None else y + bias_O

    def dense(self) -> Tensor:
        return self._all()[: self.n_rows, : self.n_columns]

    def rows(self, ids: Tensor) -> Tensor:
        return super().rows(ids) if self.table is None else self.table.rows(ids)

    def _by_blocks(self, x_MI: Tensor) -> Tensor:
        """Multiply with some blocks after the other, dequantized in the order in which they are packed."""
        parts, first = [], 0
        for bytes_NIC, place_R in self.layout.split(self.integers):
            n_blocks, n_columns, n_rows = len(bytes_NIC), bytes_NIC.shape[1], 2 * bytes_NIC.shape[2]
            pairs_GNR2 = self.scales[:, first : first + n_blocks * n_rows].view(-1, n_blocks, n_rows, 2)
            scale_NGR, offset_NGR = pairs_GNR2[:, :, place_R.argsort()].permute(3, 1, 0, 2)
            n_chunk = max(1, DEQUANTIZED // (n_columns * n_rows))
            products = []
            for some in (slice(at, at + n_chunk) for at in range(0, n_blocks, n_chunk)):
                q_NIR = halves(bytes_NIC[some]).to(self.dtype).sub_(8)
                q_NGJR = q_NIR.view(len(q_NIR), -1, self.group, n_rows)
                weight_NGJR = torch.addcmul(offset_NGR[some, :, None], q_NGJR, scale_NGR[some, :, None])
                weight_INR = weight_NGJR.flatten(1, 2).transpose(0, 1)
                products.append((x_MI @ weight_INR.flatten(1)).view(len(x_MI), len(q_NIR), n_rows))
            parts.append(torch.cat(products, 1)[:, :, place_R].flatten(1))
            first += n_blocks * n_rows
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _all(self) -> Tensor:
        """Return the matrix with the rows and columns that were added."""
        scale_OG, offset_OG = self.scales.permute(2, 1, 0)
        q_OI = self.layout.unpack(self.integers).to(self.dtype)
        q_OGJ = q_OI.view(len(q_OI), -1, self.group) - 8
        whole_OGJ: Tensor = torch.addcmul(offset_OG[..., None], q_OGJ, scale_OG[..., None])
        return whole_OGJ.flatten(1)
