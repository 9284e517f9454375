"""Rounding of a matrix whose inputs are known: the error of each column is compensated by the others.

Shapes: O rows of a matrix (outputs), I columns (inputs), C columns of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["compensated_rounding"]

BLOCK = 128
"""Number of columns whose errors are applied to all later columns at once, as one product."""


def compensated_rounding(
    weight_OI: Tensor,
    moments_II: Tensor,
    nearest: Callable[[Tensor, int], Tensor],
    *,
    damping: float = 0.01,
    n_sweeps: int = 1,
) -> Tensor:
    """Round a matrix column by column, and change the columns that are left so that they compensate each error (GPTQ).

    The error of the products, Σ ‖(W − Ŵ) x‖² = tr((W − Ŵ) H (W − Ŵ)ᵀ), is kept small, where rounding to nearest keeps
    ‖W − Ŵ‖² smallest.

    Formula:
        H = E[x xᵀ] + damping · mean(diag E[x xᵀ]) · 1;  U upper triangular with Uᵀ U = H⁻¹
        for each column j, in descending order of H[j, j]:
            Ŵ[:, j] = nearest(W[:, j]);  e = (W[:, j] − Ŵ[:, j]) / U[j, j];  W[:, k] −= e · U[j, k] for all later k
        then n_sweeps times, for each column j, with the original W:
            Ŵ[:, j] = nearest(Ŵ[:, j] + (W − Ŵ) H[:, j] / H[j, j]), the best of its numbers for all other columns as they are

    Args:
        weight_OI: the matrix, in fp32.
        moments_II: E[x xᵀ], in fp32.
        nearest: returns for some numbers (O) of a column the nearest ones that can be represented, given its index.
        damping: what is added to the diagonal, as a share of its mean.
        n_sweeps: how often all columns are rounded again.

    Returns:
        Ŵ, (O, I). Each row depends on its own weights only.

    Source:
        Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, arXiv:2210.17323;
        the sweeps are the coordinate descent of Behdin et al., QuantEase, arXiv:2309.01885.
    """
    order_I = moments_II.diagonal().argsort(descending=True, stable=True)
    columns = order_I.tolist()
    damped_II = _damped(moments_II[order_I][:, order_I], damping)
    weight_IO = weight_OI[:, order_I].T.contiguous()
    rounded_IO = _by_compensation(weight_IO, _inverse_factor(damped_II).to(weight_OI), nearest, columns)
    for _ in range(n_sweeps):
        _sweep(rounded_IO, weight_IO, damped_II.to(weight_OI), nearest, columns)
    result_OI = torch.empty_like(weight_OI)
    result_OI[:, order_I] = rounded_IO.T
    return result_OI


def _damped(moments_II: Tensor, damping: float) -> Tensor:
    """Return H in fp64; on the CPU if the device (MPS) has none."""
    damped_II = (moments_II.cpu() if moments_II.device.type == "mps" else moments_II).double()
    # Inputs that are all zero leave nothing to compensate: any positive number will do.
    mean = damped_II.diagonal().mean()
    damped_II.diagonal().add_(torch.where(mean > 0, damping * mean, 1.0))
    return damped_II


def _inverse_factor(damped_II: Tensor) -> Tensor:
    """Return the upper triangular U with Uᵀ U = H⁻¹."""
    upper_II: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped_II)), upper=True)
    return upper_II


def _by_compensation(
    weight_IO: Tensor, inverse_II: Tensor, nearest: Callable[[Tensor, int], Tensor], columns: Sequence[int]
) -> Tensor:
    left_IO, rounded_IO = weight_IO.clone(), torch.empty_like(weight_IO)
    for first in range(0, len(columns), BLOCK):
        last = min(first + BLOCK, len(columns))
        errors_CO = torch.empty_like(left_IO[first:last])
        for at in range(first, last):
            rounded_IO[at] = nearest(left_IO[at], columns[at])
            error_O = torch.sub(left_IO[at], rounded_IO[at], out=errors_CO[at - first]).div_(inverse_II[at, at])
            left_IO[at + 1 : last].addr_(inverse_II[at, at + 1 : last], error_O, alpha=-1)
        left_IO[last:].addmm_(inverse_II[first:last, last:].T, errors_CO, alpha=-1)
    return rounded_IO


def _sweep(
    rounded_IO: Tensor,
    weight_IO: Tensor,
    damped_II: Tensor,
    nearest: Callable[[Tensor, int], Tensor],
    columns: Sequence[int],
) -> None:
    """Round all columns again, in place."""
    error_IO = weight_IO - rounded_IO
    for first in range(0, len(columns), BLOCK):
        last = min(first + BLOCK, len(columns))
        pull_CO = damped_II[first:last] @ error_IO
        for at in range(first, last):
            best_O = torch.addcdiv(rounded_IO[at], pull_CO[at - first], damped_II[at, at])
            change_O = nearest(best_O, columns[at]).sub_(rounded_IO[at])
            rounded_IO[at] += change_O
            error_IO[at] -= change_O
            pull_CO[at - first + 1 :].addr_(damped_II[at, at + 1 : last], change_O, alpha=-1)
