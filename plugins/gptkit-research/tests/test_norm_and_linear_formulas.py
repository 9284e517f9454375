"""Norms and linear projections against naive forms of their formulas."""

from __future__ import annotations

import pytest
import torch
from gptkit_research.ternary import TernarySpec
from research_parts import E, T, inputs, spec

import gptkit
from gptkit.kinds.context import BuildContext
from gptkit.testing import run_checks


@torch.no_grad()
def test_dynamic_tanh_equals_its_formula() -> None:
    module = spec(norm={"name": "dynamic-tanh", "alpha": 0.8}).norm.build(BuildContext(E, 32, 1), dim=E).double()
    x = inputs(2, 3, E)
    assert float(module.alpha) == torch.tensor(0.8)
    module.weight.copy_(inputs(E, seed=2))
    module.bias.copy_(inputs(E, seed=3))
    alpha = float(module.alpha)
    for i in range(E):
        expected = torch.tanh(x[..., i] * alpha) * module.weight[i] + module.bias[i]
        torch.testing.assert_close(module(x)[..., i], expected)


@pytest.mark.parametrize("bits", [8, 4, None])
def test_ternary_equals_its_formula(bits: int | None) -> None:
    model = gptkit.GPT(
        {
            "d_model": E,
            "n_layers": 1,
            "attention": {"name": "multi-head", "n_heads": 2},
            "linear": {"name": "ternary", "bits": bits},
            "head": {"name": "linear", "linear": {"name": "ternary", "bits": bits}},
        },
        20,
    ).double()
    linear = model.blocks[0].attention.qkv
    x = inputs(1, T, E).double().requires_grad_()
    gamma = linear.weight.detach().abs().mean()
    assert set((linear.transformed_weight() / gamma).round(decimals=6).flatten().tolist()) == {-1.0, 0.0, 1.0}

    def used(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = weight.abs().mean()
        ternary = torch.stack([((w > 0.5 * scale).double() - (w < -0.5 * scale).double()) * scale for w in weight])
        if bits is None:
            return x, ternary
        largest = 2 ** (bits - 1) - 1
        rows = [(row * largest / row.abs().max()).round() * row.abs().max() / largest for row in x.reshape(-1, E)]
        return torch.stack(rows).view_as(x), ternary

    quantized, ternary = used(x.detach(), linear.weight.detach())
    y = linear(x)
    torch.testing.assert_close(y, quantized @ ternary.T)
    # Straight through: gradients as if the quantized factors were the parameters themselves.
    slope = torch.randn_like(y)
    to_x, to_weight = torch.autograd.grad(y, [x, linear.weight], slope)
    torch.testing.assert_close(to_x, slope @ ternary)
    torch.testing.assert_close(to_weight, torch.einsum("bto,bti->oi", slope, quantized))

    ids = torch.randint(20, (2, T), generator=torch.Generator().manual_seed(0))
    out = model(ids, ids, with_logits=True)
    expected = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), ids.flatten())
    torch.testing.assert_close(out.loss, expected)
    assert model.head.projection.weight.shape == (20, E)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ternary_rounds_the_middle_of_two_integers_the_same_with_any_rounding_error(bits: int, dtype: torch.dtype) -> None:
    largest = 2 ** (bits - 1) - 1
    linear = TernarySpec(bits=bits).build(BuildContext(E, 32, 1), d_in=2 * largest + 1, d_out=1, bias=False).to(dtype)
    # The multiples of half a step, as products of quantized vectors with ternary weights have them, times any number.
    x = 0.3 * torch.arange(2 * largest + 1, dtype=dtype)
    wanted = linear.transformed_input(x)
    for factor in (1 - torch.finfo(dtype).eps, 1 + torch.finfo(dtype).eps):
        nearby = torch.cat((x[:-1] * factor, x[-1:]))
        torch.testing.assert_close(linear.transformed_input(nearby), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_ternary_of_few_bits_passes_its_checks(bits: int) -> None:
    results = run_checks(TernarySpec(bits=bits), slow=True)
    assert not [f"{result.check.name}: {result.message}" for result in results if not result.ok]
