"""Optimizer `soap` against an independent formula."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gptkit.components.optimizer.adamw import AdamWSpec
from gptkit.components.optimizer.soap import SOAPSpec
from gptkit.model.gpt import GPT
from gptkit.nn.stacked import StackedLinear


class Matrices(nn.Module):
    """Model of hidden matrices."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.matrices = nn.ParameterList(torch.randn(*shape, dtype=dtype) for shape in [(6, 4), (4, 6), (5, 5)])


def gradient(parameter: Tensor, step: int) -> Tensor:
    """Return a gradient with distinct singular values, so that eigenvectors are well defined."""
    generator = torch.Generator().manual_seed(step)
    values = torch.randn(parameter.shape, generator=generator)
    scale = 1.5 ** torch.arange(parameter.shape[-1])
    return values * scale + 0.5 ** torch.arange(parameter.shape[-2]).unsqueeze(-1)


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for parameter in model.parameters():
            parameter.grad = gradient(parameter, step).to(parameter.dtype)
        optimizer.step()


def power_iteration(matrix: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the new eigenvectors, and the order of the previous ones."""
    order = torch.diag(basis.T @ matrix @ basis).argsort(descending=True)
    return torch.linalg.qr(matrix @ basis[:, order])[0], order


def initial_bases(weight: Tensor, **fields: Any) -> tuple[Tensor, Tensor]:
    """Return the eigenvectors after one step: those of a repeated eigenvalue are not unique, so no formula gives them."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    optimizer = spec(**fields).build(layer)
    take_steps(layer, optimizer, range(1))
    state, first = optimizer.state[layer.weight], gradient(weight, 0).to(weight.dtype)
    bases = []
    for side, size, preconditioner in (
        ("left", weight.shape[0], first @ first.T),
        ("right", weight.shape[1], first.T @ first),
    ):
        basis = state.get(f"{side}_basis", torch.eye(size, dtype=weight.dtype))
        bases.append(basis)
        if f"{side}_basis" in state:
            values = torch.linalg.eigvalsh(preconditioner).flip(0)
            torch.testing.assert_close(basis.T @ preconditioner @ basis, torch.diag(values), rtol=0, atol=1e-9)
            torch.testing.assert_close(basis.T @ basis, torch.eye(size, dtype=weight.dtype))
    return bases[0], bases[1]


def formula(weight: Tensor, steps: int, every: int, sides: tuple[bool, bool] = (True, True), **fields: Any) -> Tensor:
    """Return a matrix after some steps, in double precision and the notation of the paper."""
    rate, decay, beta1, beta2, beta_s, eps = 0.05, 0.2, 0.8, 0.9, 0.7, 1e-8
    w, (rows, columns) = weight.clone(), weight.shape
    left, right = torch.zeros(rows, rows).double(), torch.zeros(columns, columns).double()
    q_left, q_right = initial_bases(weight, **fields)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t in range(1, steps + 1):
        g = gradient(weight, t - 1).double()
        left = beta_s * left + (1 - beta_s) * g @ g.T
        right = beta_s * right + (1 - beta_s) * g.T @ g
        if t > 1 and t % every == 0:
            if sides[0]:
                q_left, order = power_iteration(left, q_left)
                v = v[order]
            if sides[1]:
                q_right, order = power_iteration(right, q_right)
                v = v[:, order]
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * (q_left.T @ g @ q_right) ** 2
        n = (q_left.T @ m @ q_right / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
        w = w - rate * decay * w - rate * q_left @ n @ q_right.T
    return w


def spec(**fields: Any) -> SOAPSpec:
    return SOAPSpec.model_validate(
        {"learning_rate": 0.05, "weight_decay": 0.2, "betas": (0.8, 0.9), "preconditioner_beta": 0.7, **fields}
    )


@pytest.mark.parametrize("every", [1, 3, 100])
def test_steps_equal_the_formula(every: int) -> None:
    model = Matrices(torch.float64)
    before = copy.deepcopy(model)
    take_steps(model, spec(every=every).build(model), range(7))
    for matrix, weight in zip(model.matrices, before.matrices, strict=True):
        torch.testing.assert_close(matrix.detach(), formula(weight.detach(), 7, every), rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_long_side_is_not_rotated(shape: tuple[int, int]) -> None:
    model = nn.Linear(shape[1], shape[0], bias=False, dtype=torch.float64)
    weight = model.weight.detach().clone()
    take_steps(model, spec(every=2, max_dimension=5).build(model), range(6))
    expected = formula(weight, 6, 2, sides=(shape[0] <= 5, shape[1] <= 5), max_dimension=5)
    torch.testing.assert_close(model.weight.detach(), expected, rtol=0, atol=1e-8)


def test_without_preconditioners_it_is_adamw() -> None:
    model, other = Matrices(), Matrices()
    take_steps(model, spec(max_dimension=1).build(model), range(5))
    take_steps(other, AdamWSpec(learning_rate=0.05, weight_decay=0.2, betas=(0.8, 0.9)).build(other), range(5))
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_a_stack_is_optimized_like_its_matrices() -> None:
    torch.manual_seed(0)
    # Square, since eigenvectors of a repeated eigenvalue, such as 0, are not unique.
    stacked = StackedLinear(3, 5, 5, bias=False).double()
    apart = nn.ModuleList(nn.Linear(5, 5, bias=False).double() for _ in range(3))
    with torch.no_grad():
        for layer, weight in zip(apart, stacked.weight, strict=True):
            layer.weight.copy_(weight)
    optimizers = spec(every=2).build(stacked), spec(every=2).build(apart)
    for step in range(5):
        gradients = [gradient(layer.weight, 10 * step + x) for x, layer in enumerate(apart)]
        stacked.weight.grad = torch.stack(gradients).double()
        for layer, each in zip(apart, stacked.weight.grad, strict=True):
            layer.weight.grad = each.clone()
        for optimizer in optimizers:
            optimizer.step()
    wanted = torch.stack([layer.weight for layer in apart])
    torch.testing.assert_close(stacked.weight, wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("interrupted", [1, 2, 3])
def test_state_is_of_tensors_and_resumes_bit_identically(interrupted: int) -> None:
    model, optimizer_spec = Matrices(), spec(every=2)
    optimizer = optimizer_spec.build(model)
    take_steps(model, optimizer, range(interrupted))
    state = optimizer.state_dict()["state"]
    assert {type(value) for entry in state.values() for value in entry.values()} == {Tensor, int}
    other = copy.deepcopy(model)
    resumed = optimizer_spec.build(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_steps(model, optimizer, range(interrupted, 7))
    take_steps(other, resumed, range(interrupted, 7))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_hidden_matrices_of_a_gpt_are_preconditioned() -> None:
    model = GPT({"d_model": 16, "n_layers": 1, "context_length": 8}, vocab_size=11)
    optimizer = SOAPSpec(learning_rate=0.01).build(model)
    ids = torch.arange(8).reshape(1, 8)
    losses = []
    for _ in range(12):
        loss = model(ids, ids.roll(-1)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    names = {parameter: name for name, parameter in model.named_parameters()}
    with_basis = {names[parameter] for parameter, state in optimizer.state.items() if "left_basis" in state}
    assert with_basis == {name for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2}
    assert losses[-1] < 0.5 * losses[0]
