"""The fast backward pass of RMS normalization against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gptkit.ops.rms_norm import rms_norm


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 3, 5, 24)])
@pytest.mark.parametrize("autocast", [True, False])
def test_gradients_equal_torch(weighted: bool, shape: tuple[int, ...], autocast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) + 0.5).requires_grad_()
    weight = torch.randn(24, generator=generator).requires_grad_() if weighted else None
    grad = torch.randn(shape, generator=generator) + 0.5
    inputs = [x] if weight is None else [x, weight]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        actual = rms_norm(x, weight, 0.01)
        reference = F.rms_norm(x, (24,), weight, 0.01)
        assert type(actual.grad_fn).__name__ == "_RMSNormBackward"
        torch.testing.assert_close(actual, reference, rtol=0, atol=1e-5)
        for got, wanted in zip(
            torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(reference, inputs, grad), strict=True
        ):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


def test_inputs_may_be_non_contiguous() -> None:
    x = torch.randn(2, 4, 3, 24, generator=torch.Generator().manual_seed(0)).transpose(1, 2).requires_grad_()
    grad = torch.randn(2, 4, 3, 24, generator=torch.Generator().manual_seed(1)).transpose(1, 2)
    weight = torch.randn(24, generator=torch.Generator().manual_seed(2))
    (got,) = torch.autograd.grad(rms_norm(x, weight, 1e-5), x, grad)
    (wanted,) = torch.autograd.grad(F.rms_norm(x, (24,), weight, 1e-5), x, grad)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


def test_double_precision_and_frozen_inputs_are_supported() -> None:
    x = torch.randn(3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(24, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: rms_norm(x, w, 1e-5), (weight,))
    assert torch.autograd.gradcheck(lambda y: rms_norm(y, weight, 1e-5), (x.clone().requires_grad_(),))


def test_function_compiles() -> None:
    x = torch.randn(3, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.randn(24, generator=torch.Generator().manual_seed(1)).requires_grad_()
    compiled = torch.compile(lambda: rms_norm(x, weight, 1e-5), backend="aot_eager", fullgraph=True)
    for got, wanted in zip(
        torch.autograd.grad(compiled().square().sum(), [x, weight]),
        torch.autograd.grad(rms_norm(x, weight, 1e-5).square().sum(), [x, weight]),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
