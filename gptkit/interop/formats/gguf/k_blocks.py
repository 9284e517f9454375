"""The k-quants of ggml that are written: blocks of 256 elements in groups, each of which has a quantized step.

The steps minimize a weighted squared error: for each of several roundings, they follow by least squares, and the best
rounding is kept, as in ggml's `quantize_row_q4_K_ref` and `quantize_row_q6_K_ref`.

Shapes: N blocks, G groups of a block, E elements of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pack_q4_k", "pack_q6_k"]

_TINY = 1e-15


def pack_q4_k(x_NL: Tensor) -> Tensor:
    """Return blocks of 8 groups of 32 elements of 4 bits, each group with a step and a minimum of 6 bits."""
    x_NGE = x_NL.view(-1, 8, 32)
    weight_NGE = x_NGE.square().mean(-1, keepdim=True).sqrt() + x_NGE.abs()
    step_NG, low_NG = _affine(x_NGE, weight_NGE, 15)
    d_N1, steps_NG = _six_bits(step_NG)
    m_N1, lows_NG = _six_bits(low_NG)
    d_NG, m_NG = d_N1.float() * steps_NG, m_N1.float() * lows_NG
    shifted_NGE = (x_NGE + m_NG[..., None]) / torch.where(d_NG == 0, 1.0, d_NG)[..., None]
    levels_NGE = shifted_NGE.round().clamp(0, 15).mul(d_NG[..., None] != 0).to(torch.uint8)
    pairs_NPHE = levels_NGE.view(-1, 4, 2, 32)
    packed = (pairs_NPHE[:, :, 0] | pairs_NPHE[:, :, 1] << 4).flatten(1)
    steps, lows = steps_NG.to(torch.uint8), lows_NG.to(torch.uint8)
    first = steps[:, :4] | (steps[:, 4:] >> 4) << 6
    second = lows[:, :4] | (lows[:, 4:] >> 4) << 6
    third = (steps[:, 4:] & 15) | (lows[:, 4:] & 15) << 4
    return torch.cat([d_N1.view(torch.uint8), m_N1.view(torch.uint8), first, second, third, packed], dim=1)


def pack_q6_k(x_NL: Tensor) -> Tensor:
    """Return blocks of 16 groups of 16 signed elements of 6 bits, each group with a step of 8 bits."""
    x_NGE = x_NL.view(-1, 16, 16)
    step_NG = _symmetric(x_NGE, 32)
    extreme_N1 = _extreme(step_NG)
    inverse_N1 = torch.where(extreme_N1.abs() < _TINY, 0.0, -128 / extreme_N1)
    d_N1 = torch.where(inverse_N1 == 0, 0.0, 1 / inverse_N1).half()
    steps_NG = (step_NG * inverse_N1).round().clamp(-128, 127)
    d_NG = d_N1.float() * steps_NG
    scaled_NGE = x_NGE / torch.where(d_NG == 0, 1.0, d_NG)[..., None]
    levels_NGE = scaled_NGE.round().clamp(-32, 31).mul(d_NG[..., None] != 0) + 32
    # Halves of 128 elements, each of four quarters.
    q_NHQE = levels_NGE.to(torch.uint8).view(-1, 2, 4, 32)
    low = torch.stack([(q_NHQE[:, :, i] & 15) | (q_NHQE[:, :, i + 2] & 15) << 4 for i in range(2)], dim=2).flatten(1)
    high = q_NHQE[:, :, 0] >> 4
    for quarter in range(1, 4):
        high = high | (q_NHQE[:, :, quarter] >> 4) << 2 * quarter
    return torch.cat([low, high.flatten(1), steps_NG.to(torch.int8).view(torch.uint8), d_N1.view(torch.uint8)], dim=1)


def _affine(x_NGE: Tensor, weight_NGE: Tensor, n_levels: int) -> tuple[Tensor, Tensor]:
    """Return the step of each group, and the magnitude of its minimum, which is at most zero."""
    low, high = x_NGE.amin(-1).clamp(max=0), x_NGE.amax(-1)
    span = high - low
    flat = span <= 0
    span = torch.where(flat, 1.0, span)
    sum_w, sum_x = weight_NGE.sum(-1), (weight_NGE * x_NGE).sum(-1)

    def levels(n: float) -> Tensor:
        # From the best minimum so far.
        inverse = n / torch.where(flat, 1.0, high - least)
        return ((x_NGE - least[..., None]) * inverse[..., None]).round().clamp(0, n_levels)

    def error(step: Tensor, least: Tensor, l_NGE: Tensor) -> Tensor:
        return (weight_NGE * (step[..., None] * l_NGE + least[..., None] - x_NGE).square()).sum(-1)

    step, least = span / n_levels, low
    best = error(step, least, levels(n_levels))
    for index in range(21):
        l_NGE = levels(n_levels - 1 + 0.1 * index)
        weighted = weight_NGE * l_NGE
        sum_l, sum_l2, sum_xl = weighted.sum(-1), (weighted * l_NGE).sum(-1), (weighted * x_NGE).sum(-1)
        determinant = sum_w * sum_l2 - sum_l.square()
        divisor = torch.where(determinant > 0, determinant, 1.0)
        this_step = (sum_w * sum_xl - sum_x * sum_l) / divisor
        this_least = (sum_l2 * sum_x - sum_l * sum_xl) / divisor
        above = this_least > 0
        this_step = torch.where(above, sum_xl / sum_l2.clamp(min=_TINY), this_step)
        this_least = torch.where(above, 0.0, this_least)
        this = error(this_step, this_least, l_NGE)
        better = (this < best) & (determinant > 0)
        best, step = torch.where(better, this, best), torch.where(better, this_step, step)
        least = torch.where(better, this_least, least)
    return torch.where(flat, 0.0, step), torch.where(flat, -low, -least)


def _symmetric(x_NGE: Tensor, n_levels: int) -> Tensor:
    """Return the step of each group, with weights that are the squares of its elements."""
    extreme = _extreme(x_NGE)[..., 0]
    empty = extreme.abs() < _TINY
    extreme = torch.where(empty, 1.0, extreme)
    weight = x_NGE.square()

    def sums(inverse: Tensor) -> tuple[Tensor, Tensor]:
        l_NGE = (x_NGE * inverse[..., None]).round().clamp(-n_levels, n_levels - 1)
        weighted = weight * l_NGE
        return (weighted * x_NGE).sum(-1), (weighted * l_NGE).sum(-1)

    sum_xl, sum_l2 = sums(-n_levels / extreme)
    step = torch.where(sum_l2 > 0, sum_xl / sum_l2.clamp(min=1e-37), 0.0)
    best = step * sum_xl
    for index in (*range(-9, 0), *range(1, 10)):
        sum_xl, sum_l2 = sums(-(n_levels + 0.1 * index) / extreme)
        better = (sum_l2 > 0) & (sum_xl.square() > best * sum_l2)
        step = torch.where(better, sum_xl / sum_l2.clamp(min=1e-37), step)
        best = torch.where(better, step * sum_xl, best)
    return torch.where(empty, 0.0, step)


def _extreme(x: Tensor) -> Tensor:
    """Return the element of largest magnitude along the last dimension, with its sign; the dimension is kept."""
    largest = x.abs().amax(-1, keepdim=True)
    index = torch.where(x.abs() == largest, torch.arange(x.shape[-1]), x.shape[-1]).amin(-1, keepdim=True)
    return x.gather(-1, index)


def _six_bits(value_NG: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unit of a block's values in fp16, and the values as multiples of it from 0 to 63."""
    largest_N1 = value_NG.amax(1, keepdim=True)
    inverse_N1 = torch.where(largest_N1 > 0, 63 / largest_N1, 0.0)
    return (largest_N1 / 63).half(), (value_NG * inverse_N1).round().clamp(0, 63)
