"""Options of optimizer `muon` against independent formulas: NorMuon, Polar Express and cautious weight decay."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gptkit.components.optimizer.adamw import AdamWSpec
from gptkit.components.optimizer.modules import muon
from gptkit.components.optimizer.modules.muon import NEWTON_SCHULZ, POLAR_EXPRESS, orthogonalize
from gptkit.components.optimizer.muon import MuonSpec
from gptkit.nn.stacked import StackedLinear

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch 2.9")

# The first five lines of the list in arXiv 2505.16932, algorithm 1.
PAPER = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
]

SHAPES = [(6, 4), (4, 6), (5, 5)]


class Matrices(nn.Module):
    """Model of hidden matrices, and one bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.matrices = nn.ParameterList(torch.randn(*shape) for shape in SHAPES)
        self.others = nn.ParameterList([torch.randn(7)])


def gradients(model: nn.Module, step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(parameter.shape, generator=generator) for parameter in model.parameters()]


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for parameter, gradient in zip(model.parameters(), gradients(model, step), strict=True):
            parameter.grad = gradient
        optimizer.step()


def iterated(matrix: Tensor, triples: list[tuple[float, float, float]], safety: float) -> Tensor:
    """Return a·X + b·(X·Xᵀ)·X + c·(X·Xᵀ)²·X after each triple, on the side with fewer rows."""
    if matrix.shape[0] > matrix.shape[1]:
        return iterated(matrix.T, triples, safety).T
    x = matrix / (matrix.norm() * safety)
    for a, b, c in triples:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def formula(weight: Tensor, steps: int, options: dict[str, Any], index: int, model: nn.Module) -> Tensor:
    """Return a matrix after some steps of Muon with options, computed in the notation of the papers."""
    rate, decay, momentum, n = 0.1, 0.5, 0.9, 5
    rows, columns = weight.shape
    rms = options.get("scale", "rms") == "rms"
    polar = options.get("coefficients") == "polar-express"
    triples = [(a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in PAPER] if polar else [(3.4445, -4.775, 2.0315)] * n
    average, moment, weight = torch.zeros_like(weight), torch.zeros(rows, 1), weight.clone()
    for step in range(steps):
        gradient = gradients(model, step)[index]
        average = momentum * average + (1 - momentum) * gradient
        update = iterated((1 - momentum) * gradient + momentum * average, triples, 1.01 if polar else 1.0)
        factor = 0.2 * math.sqrt(max(rows, columns)) if rms else math.sqrt(max(1, rows / columns))
        if "neuron_beta" in options:
            beta = options["neuron_beta"]
            moment = beta * moment + (1 - beta) * (update**2).sum(1, keepdim=True) / columns
            normalized = update / (moment.sqrt() + 1e-8)
            size = 0.2 * math.sqrt(rows * columns) if rms else factor * update.norm()
            update, factor = normalized / normalized.norm() * size, 1.0
        mask = (update * weight >= 0).float() if options.get("cautious") else 1.0
        weight = weight - rate * decay * mask * weight - rate * factor * update
    return weight


OPTIONS: list[dict[str, Any]] = [
    {"coefficients": "polar-express"},
    {"neuron_beta": 0.8},
    {"neuron_beta": 0.8, "scale": "spectral"},
    {"cautious": True},
    {"coefficients": "polar-express", "neuron_beta": 0.95, "cautious": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_equal_the_formulas(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # In fp32: the rounding of bf16 depends on the order of the sums, and would change signs that `cautious` reads.
    monkeypatch.setattr(muon, "orthogonalize", partial(orthogonalize, dtype=torch.float32))
    model = Matrices()
    before = copy.deepcopy(model)
    spec = MuonSpec(learning_rate=0.1, weight_decay=0.5, momentum=0.9, **options)
    take_steps(model, spec.build(model), range(4))
    for index, matrix in enumerate(model.matrices):
        expected = formula(before.matrices[index].detach(), 4, options, index, before)
        torch.testing.assert_close(matrix.detach(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_stack_is_optimized_like_its_matrices(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    stacked = StackedLinear(3, 4, 6, bias=False)
    apart = nn.ModuleList(nn.Linear(4, 6, bias=False) for _ in range(3))
    with torch.no_grad():
        for layer, weight in zip(apart, stacked.weight, strict=True):
            layer.weight.copy_(weight)
    optimizers = MuonSpec(learning_rate=0.1, **options).build(stacked), MuonSpec(learning_rate=0.1, **options).build(apart)
    for _ in range(3):
        stacked.weight.grad = torch.randn_like(stacked.weight)
        for layer, gradient in zip(apart, stacked.weight.grad, strict=True):
            layer.weight.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    wanted = torch.stack([layer.weight for layer in apart])
    torch.testing.assert_close(stacked.weight, wanted, rtol=0, atol=0.1 * 0.03)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_state_of_the_options_resumes_bit_identically(options: dict[str, Any]) -> None:
    model, spec = Matrices(), MuonSpec(learning_rate=0.1, **options)
    optimizer = spec.build(model)
    take_steps(model, optimizer, range(3))
    other = copy.deepcopy(model)
    resumed = spec.build(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_steps(model, optimizer, range(3, 6))
    take_steps(other, resumed, range(3, 6))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def singular_values(coefficients: Any, steps: int, safety: float, dtype: torch.dtype) -> tuple[float, float]:
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(64, 64))[0] for _ in range(2))
    matrix = left * torch.logspace(0, -2, 64) @ right
    values = torch.linalg.svdvals(orthogonalize(matrix, steps, coefficients, safety=safety, dtype=dtype).float())
    return float(values.min()), float(values.max())


@pytest.mark.parametrize(
    ("coefficients", "steps", "safety", "dtype", "least", "most"),
    [
        (NEWTON_SCHULZ, 5, 1.0, torch.float32, 0.68, 1.21),
        (NEWTON_SCHULZ, 10, 1.0, torch.float32, 0.68, 1.21),  # does not converge
        (POLAR_EXPRESS, 5, 1.01, torch.float32, 0.87, 1.13),
        (POLAR_EXPRESS, 8, 1.01, torch.float32, 1 - 1e-5, 1 + 1e-5),
        (POLAR_EXPRESS, 8, 1.01, torch.bfloat16, 0.99, 1.01),
    ],
)
def test_documented_orthogonality(
    coefficients: Any, steps: int, safety: float, dtype: torch.dtype, least: float, most: float
) -> None:
    smallest, largest = singular_values(coefficients, steps, safety, dtype)
    assert least <= smallest <= largest <= most
    assert (smallest < 0.9) == (steps == 5 or coefficients is NEWTON_SCHULZ)


@pytest.mark.parametrize("everywhere", [False, True])
def test_cautious_adamw_equals_the_formula(everywhere: bool) -> None:
    model = Matrices()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    spec = AdamWSpec(learning_rate=0.1, weight_decay=0.5, cautious=True, decay="all" if everywhere else "matrices")
    take_steps(model, spec.build(model), range(4))
    for index, (parameter, weight) in enumerate(zip(model.parameters(), before, strict=True)):
        decay = 0.5 if everywhere or weight.ndim == 2 else 0.0
        first, second = torch.zeros_like(weight), torch.zeros_like(weight)
        for step in range(4):
            gradient = gradients(model, step)[index]
            first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient**2
            update = first / (1 - 0.9 ** (step + 1)) / ((second / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8)
            weight = weight - 0.1 * (update + decay * (update * weight >= 0) * weight)
        torch.testing.assert_close(parameter.detach(), weight, rtol=0, atol=1e-5)


def test_cautious_muon_treats_the_parameters_of_adamw_alike() -> None:
    torch.manual_seed(0)
    model, other = nn.Embedding(5, 4), nn.Embedding(5, 4)
    other.load_state_dict(model.state_dict())
    settings = {"learning_rate": 0.1, "weight_decay": 0.5, "cautious": True}
    take_steps(model, MuonSpec(**settings).build(model), range(3))
    take_steps(other, AdamWSpec(**settings).build(other), range(3))
    assert torch.equal(model.weight, other.weight)
