"""Linear layer in fp8: the products of the rounded factors, for the result and both gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.ops.fp8_linear import fp8_linear, has_fp8

pytestmark = pytest.mark.skipif(not has_fp8(torch.device("cpu")), reason="this torch has no fp8 products on a CPU")

I, O = 48, 80  # noqa: E741


def tensors(*shape: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = scale * torch.randn(*shape, I, generator=generator)
    weight_OI = 0.2 * torch.randn(O, I, generator=generator)
    bias_O = torch.randn(O, generator=generator)
    grad = torch.randn(*shape, O, generator=generator)
    return x.requires_grad_(), weight_OI.requires_grad_(), bias_O.requires_grad_(), grad


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers that an 8-bit type with one scale for the tensor can represent, next to those of x."""
    scale = x.detach().abs().max() / torch.finfo(dtype).max
    return (x.detach() / scale).to(dtype).float() * scale


@pytest.mark.parametrize("shape", [(32,), (3, 7), (2, 3, 5), (1,)])
def test_products_are_those_of_rounded_factors(shape: tuple[int, ...]) -> None:
    x, weight_OI, bias_O, grad = tensors(*shape)
    y = fp8_linear(x, weight_OI, bias_O)
    assert y.dtype == torch.bfloat16
    y.backward(grad.bfloat16())
    x8, weight8_OI = rounded(x, torch.float8_e4m3fn), rounded(weight_OI, torch.float8_e4m3fn)
    grad8 = rounded(grad.bfloat16().float(), torch.float8_e5m2)
    assert x.grad is not None
    assert weight_OI.grad is not None
    assert bias_O.grad is not None
    near = {"rtol": 1e-2, "atol": 3e-2}  # bf16
    torch.testing.assert_close(y.float(), F.linear(x8, weight8_OI) + bias_O, **near)
    torch.testing.assert_close(x.grad, grad8 @ weight8_OI, **near)
    torch.testing.assert_close(weight_OI.grad, grad8.reshape(-1, O).T @ x8.reshape(-1, I), **near)
    torch.testing.assert_close(bias_O.grad, grad.reshape(-1, O).sum(0), rtol=2e-2, atol=5e-2)
    assert (x.grad.dtype, weight_OI.grad.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("scale", [1e-20, 1e-4, 1.0, 1e6, 1e20])
def test_errors_do_not_depend_on_the_scale(scale: float) -> None:
    x, weight_OI, _, _ = tensors(64, scale=scale)
    exact = F.linear(x.double(), weight_OI.double())
    assert 0.01 < (fp8_linear(x, weight_OI) - exact).norm() / exact.norm() < 0.05


def test_zeros_and_infinities() -> None:
    x, weight_OI, _, _ = tensors(4)
    assert not fp8_linear(torch.zeros_like(x), weight_OI).any()
    with torch.no_grad():
        x[1, 2] = torch.inf
    assert fp8_linear(x, weight_OI).isnan().any()  # which the training reports


def test_only_required_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight_OI, _, grad = tensors(16)
    products = []
    original = torch._scaled_mm
    monkeypatch.setattr(torch, "_scaled_mm", lambda *args, **options: products.append(1) or original(*args, **options))
    fp8_linear(x, weight_OI.detach()).backward(grad.bfloat16())
    assert len(products) == 2
    assert x.grad is not None
