"""Causal attention in blocks equals the definition, with its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.ops import causal_attention as module
from gptkit.ops.causal_attention import causal_attention, suits


def _inputs(shape: tuple[int, int, int, int], dtype: torch.dtype, n_kv_heads: int | None = None) -> list[Tensor]:
    n_rows, n_heads, n_tokens, d_head = shape
    generator = torch.Generator().manual_seed(0)
    heads = (n_heads, n_kv_heads or n_heads, n_kv_heads or n_heads)
    widths = (d_head, d_head, d_head + 2)
    return [
        torch.randn(n_rows, n_tokens, h, w, generator=generator, dtype=dtype).transpose(1, 2).requires_grad_()
        for h, w in zip(heads, widths, strict=True)
    ]


@pytest.mark.parametrize(
    ("shape", "n_kv_heads"), [((3, 4, 40, 8), 4), ((2, 4, 300, 8), 2), ((2, 3, 256, 16), 1), ((1, 2, 600, 8), 2)]
)
def test_fp32_result_and_gradients_equal_the_definition(shape: tuple[int, int, int, int], n_kv_heads: int) -> None:
    q, k, v = _inputs(shape, torch.float32, n_kv_heads)
    actual = causal_attention(q, k, v, scale=0.3)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    grad = torch.randn(actual.shape, generator=torch.Generator().manual_seed(1))
    results = (torch.autograd.grad(y, (q, k, v), grad) for y in (actual, expected))
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_contents_of_new_memory_do_not_matter(dtype: torch.dtype) -> None:
    expected, actual = [], []
    for results, deterministic in ((expected, False), (actual, True)):
        # The deterministic mode fills new memory with NaN.
        torch.use_deterministic_algorithms(deterministic)
        try:
            inputs = _inputs((2, 2, 300, 8), dtype)
            results.append(causal_attention(*inputs, scale=0.3))
            results += torch.autograd.grad(results[0].float().square().sum(), inputs)
        finally:
            torch.use_deterministic_algorithms(False)
    assert all(torch.equal(own, other) and own.isfinite().all() for own, other in zip(actual, expected, strict=True))


def test_several_groups_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_ELEMENTS", 2 * 2 * 40 * 40)
    q, k, v = _inputs((5, 2, 40, 4), torch.float64)
    actual = causal_attention(q, k, v, scale=1.0)
    torch.testing.assert_close(actual, F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0))
    for own, other in zip(
        torch.autograd.grad(actual.square().sum(), (q, k, v)),
        torch.autograd.grad(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0).square().sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(own, other)


def test_bf16_differs_from_fp32_by_rounding() -> None:
    exact = _inputs((2, 4, 256, 32), torch.float32)
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = causal_attention(*exact, scale=0.2)
    actual = causal_attention(*rounded, scale=0.2)
    assert under_autocast.dtype == torch.bfloat16
    assert torch.equal(actual, under_autocast)
    expected = causal_attention(*exact, scale=0.2)
    torch.testing.assert_close(actual.float(), expected, atol=0.03, rtol=0.03)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for own, other in zip(
        torch.autograd.grad(actual, rounded, grad.bfloat16()), torch.autograd.grad(expected, exact, grad), strict=True
    ):
        assert (own.float() - other).norm() < 0.02 * other.norm()


def test_gradients_with_dropout_equal_numeric_ones() -> None:
    q, k, v = _inputs((2, 2, 33, 4), torch.float64)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(0)
        return causal_attention(q, k, v, scale=0.5, dropout=0.3)

    assert torch.autograd.gradcheck(run, (q, k, v), fast_mode=True)


def test_dropout_of_weights_has_the_mean_of_the_definition() -> None:
    q, k, v = _inputs((1, 2, 40, 4), torch.float32)
    torch.manual_seed(0)
    mean = torch.stack([causal_attention(q, k, v, scale=0.5, dropout=0.2).detach() for _ in range(2000)]).mean(0)
    expected = causal_attention(q, k, v, scale=0.5)
    torch.testing.assert_close(mean, expected.detach(), atol=0.08, rtol=0.0)


def test_what_it_suits() -> None:
    q, k, v = _inputs((1, 2, 64, 4), torch.float32)
    assert suits(q, k, v)
    assert not suits(q.detach(), k.detach(), v.detach())
    assert not suits(q[:, :, :4], k[:, :, :4], v[:, :, :4])
    assert not suits(q.to("meta"), k.to("meta"), v.to("meta"))
    with torch.no_grad():
        assert not suits(q, k, v)
