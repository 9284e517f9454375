"""Rounding that compensates its errors, against the least-squares problem that it solves, in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gptkit.ops.compensated_rounding import compensated_rounding

DAMPING = 0.01


def problem(rows: int, columns: int, *, n_inputs: int) -> tuple[Tensor, Tensor]:
    """A matrix, and the second moments of correlated inputs."""
    generator = torch.Generator().manual_seed(columns)
    mixing_II = torch.randn(columns, columns, generator=generator) * torch.linspace(0.1, 2, columns)
    x_MI = torch.randn(n_inputs, columns, generator=generator) @ mixing_II
    return torch.randn(rows, columns, generator=generator), x_MI.T @ x_MI / n_inputs


def quarters(numbers_O: Tensor, column: int) -> Tensor:
    """The nearest quarters; whole numbers in odd columns."""
    step = 1 if column % 2 else 0.25
    return (numbers_O / step).round() * step


def by_least_squares(weight_OI: Tensor, moments_II: Tensor) -> Tensor:
    """Round one column after the other; after each, the free ones are the minimizer for the rounded ones, from scratch."""
    weight_OI, moments_II = weight_OI.double(), moments_II.double()
    moments_II = moments_II + DAMPING * moments_II.diagonal().mean() * torch.eye(len(moments_II), dtype=torch.float64)
    rounded_OI = weight_OI.clone()
    free = moments_II.diagonal().argsort(descending=True).tolist()
    fixed: list[int] = []
    while free:
        current_OF = weight_OI[:, free]
        if fixed:
            error_OR = weight_OI[:, fixed] - rounded_OI[:, fixed]
            free_FF, mixed_RF = moments_II[free][:, free], moments_II[fixed][:, free]
            current_OF = current_OF + torch.linalg.solve(free_FF, (error_OR @ mixed_RF).T).T
        column = free.pop(0)
        rounded_OI[:, column] = quarters(current_OF[:, 0], column)
        fixed.append(column)
    return rounded_OI


def output_error(weight_OI: Tensor, rounded_OI: Tensor, moments_II: Tensor) -> float:
    error_OI = (weight_OI - rounded_OI).double()
    return float((error_OI @ moments_II.double() * error_OI).sum())


@pytest.mark.parametrize(("rows", "columns", "n_inputs"), [(5, 12, 40), (3, 150, 400), (4, 20, 6), (1, 1, 3)])
def test_each_column_is_that_of_the_least_squares_problem(rows: int, columns: int, n_inputs: int) -> None:
    weight_OI, moments_II = problem(rows, columns, n_inputs=n_inputs)
    before = weight_OI.clone(), moments_II.clone()
    rounded_OI = compensated_rounding(weight_OI, moments_II, quarters, damping=DAMPING, n_sweeps=0)
    assert torch.equal(rounded_OI.double(), by_least_squares(weight_OI, moments_II))
    assert torch.equal(weight_OI, before[0])
    assert torch.equal(moments_II, before[1])


@pytest.mark.parametrize(("rows", "columns"), [(5, 12), (3, 150)])
def test_sweeps_end_where_no_other_number_of_a_column_is_better(rows: int, columns: int) -> None:
    weight_OI, moments_II = problem(rows, columns, n_inputs=3 * columns)
    damped_II = moments_II + DAMPING * moments_II.diagonal().mean() * torch.eye(columns)
    errors = []
    for n_sweeps in (0, 1, 2, 40):
        rounded_OI = compensated_rounding(weight_OI, moments_II, quarters, damping=DAMPING, n_sweeps=n_sweeps)
        errors.append(output_error(weight_OI, rounded_OI, damped_II))
    assert errors[0] > errors[1] >= errors[2] >= errors[3]
    for column in range(columns):
        step = 1 if column % 2 else 0.25
        for other in (-step, step):
            changed_OI = rounded_OI.clone()
            changed_OI[:, column] += other
            assert torch.equal(quarters(changed_OI[:, column], column), changed_OI[:, column])
            for row in range(rows):
                mine = slice(row, row + 1)
                assert output_error(weight_OI[mine], changed_OI[mine], damped_II) >= output_error(
                    weight_OI[mine], rounded_OI[mine], damped_II
                ) * (1 - 1e-6)


def test_error_of_the_products_is_below_that_of_rounding_to_nearest() -> None:
    weight_OI, moments_II = problem(32, 64, n_inputs=300)
    nearest_OI = torch.stack([quarters(weight_OI[:, column], column) for column in range(64)], 1)
    rounded_OI = compensated_rounding(weight_OI, moments_II, quarters)
    assert output_error(weight_OI, rounded_OI, moments_II) < 0.7 * output_error(weight_OI, nearest_OI, moments_II)
    # The weights themselves are farther away.
    assert (weight_OI - rounded_OI).norm() > (weight_OI - nearest_OI).norm()


def test_uncorrelated_inputs_leave_rounding_to_nearest() -> None:
    weight_OI, _ = problem(4, 10, n_inputs=1)
    nearest_OI = torch.stack([quarters(weight_OI[:, column], column) for column in range(10)], 1)
    for moments_II in (torch.diag(torch.rand(10)), torch.zeros(10, 10)):
        assert torch.equal(compensated_rounding(weight_OI, moments_II, quarters), nearest_OI)
