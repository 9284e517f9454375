"""Soft bounds of logits against their formulas, alone and in the chunked loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.ops import cross_entropy_rows
from gptkit.ops import linear_cross_entropy as module
from gptkit.ops.linear_cross_entropy import linear_cross_entropy
from gptkit.ops.softcap import Softcap, bound, default_width

N, E, V = 13, 7, 37
FORMS: list[tuple[Softcap, Callable[[Tensor], Tensor]]] = [
    (Softcap(4.0, 4.0), lambda z: 4 * torch.tanh(z / 4)),
    (Softcap(4.0, 2.5, "tanh", -0.5), lambda z: 4 * torch.tanh((z - 0.5) / 2.5)),
    (Softcap(23.0, 7.5, "sigmoid", 5.0), lambda z: 23 * torch.sigmoid((z + 5) / 7.5)),
    (Softcap(15.0, 15.0, "rational"), lambda z: 15 * z * torch.rsqrt(z.square() + 225)),
    (Softcap(3.0, 2.0, "rational", 1.0), lambda z: 3 * (z + 1) / (4 + (z + 1) ** 2).sqrt()),
]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 5 * V * 4)
    monkeypatch.setattr(cross_entropy_rows, "BLOCK_BYTES", 2 * V * 4)


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, E, generator=generator, dtype=torch.float64).to(dtype) for n in (N, V))
    targets = torch.randint(V, (N,), generator=generator)
    targets[3] = -100
    return (2 * x).requires_grad_(), weight.requires_grad_(), targets


@pytest.mark.parametrize(("softcap", "formula"), FORMS)
def test_bound_equals_its_formula(softcap: Softcap, formula: Callable[[Tensor], Tensor]) -> None:
    logits = torch.linspace(-60, 60, 241, dtype=torch.float64)
    torch.testing.assert_close(bound(logits, softcap), formula(logits))
    assert bound(logits, softcap).abs().max() <= softcap.cap
    assert bound(logits.bfloat16(), softcap).dtype == torch.bfloat16


@pytest.mark.parametrize(("softcap", "formula"), FORMS)
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_loss_and_gradients_equal_those_of_the_logits(
    softcap: Softcap, formula: Callable[[Tensor], Tensor], z_loss: float
) -> None:
    x, weight, targets = case()
    loss = linear_cross_entropy(x, weight, targets, softcap=softcap, z_loss=z_loss, scale=0.7)
    logits = formula(0.7 * x @ weight.T)
    wanted = F.cross_entropy(logits, targets) + z_loss * logits.logsumexp(1)[targets >= 0].square().mean()
    torch.testing.assert_close(loss, wanted)
    for got, expected in zip(torch.autograd.grad(loss, (x, weight)), torch.autograd.grad(wanted, (x, weight)), strict=True):
        torch.testing.assert_close(got, expected)
    assert torch.autograd.gradcheck(
        lambda *tensors: linear_cross_entropy(*tensors, targets, softcap=softcap), (x, weight), fast_mode=True
    )


@pytest.mark.parametrize(("softcap", "formula"), FORMS)
def test_bf16_is_close(softcap: Softcap, formula: Callable[[Tensor], Tensor]) -> None:
    x, weight, targets = case()
    wanted = F.cross_entropy(formula(x @ weight.T), targets)
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in (x, weight)]
    loss = linear_cross_entropy(*half, targets, softcap=softcap)
    assert loss.item() == pytest.approx(wanted.item(), rel=0.01)
    for got, expected in zip(torch.autograd.grad(loss, half), torch.autograd.grad(wanted, (x, weight)), strict=True):
        assert (got - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize(("softcap", "formula"), FORMS)
def test_compiled_and_on_meta(softcap: Softcap, formula: Callable[[Tensor], Tensor]) -> None:
    x, weight, targets = case(torch.float32)

    def loss(x: Tensor) -> Tensor:
        return linear_cross_entropy(x, weight, targets, softcap=softcap)

    compiled: Any = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), loss(x))
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x)[0], torch.autograd.grad(loss(x), x)[0])
    assert linear_cross_entropy(x.to("meta"), weight.to("meta"), targets.to("meta"), softcap=softcap).is_meta


def test_symmetric_sigmoid_is_the_tanh_of_half_the_cap() -> None:
    """modded-nanogpt's 30 · sigmoid(z / 7.5) and the tanh form with cap 15 differ by a constant."""
    logits = torch.linspace(-60, 60, 241, dtype=torch.float64)
    sigmoid = Softcap(30.0, default_width(30.0, "sigmoid"), "sigmoid")
    assert sigmoid.width == 7.5
    torch.testing.assert_close(bound(logits, sigmoid) - 15, bound(logits, Softcap(15.0, 15.0)))
    x, weight, targets = case()
    first = linear_cross_entropy(x, weight, targets, softcap=sigmoid)
    torch.testing.assert_close(first, linear_cross_entropy(x, weight, targets, softcap=15.0))


def test_default_widths_have_slope_one() -> None:
    for form in ("tanh", "sigmoid", "rational"):
        z = torch.zeros((), dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(bound(z, Softcap(7.0, default_width(7.0, form), form)), z)  # type: ignore[arg-type]
        assert math.isclose(slope.item(), 1.0)
