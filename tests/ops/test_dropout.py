"""Dropout on the CPU: its rate, its scale, its gradient, and its dependence on torch's generator alone."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from gptkit.ops.dropout import SECTION_WORDS, DropoutMask, dropout

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("probability", [0.05, 0.5, 0.9])
def test_elements_are_dropped_at_the_rate_and_the_others_scaled(dtype: torch.dtype, probability: float) -> None:
    torch.manual_seed(0)
    n_elements = SECTION_WORDS * 5 + 3
    y = dropout(torch.ones(n_elements, dtype=dtype), probability, True)
    kept = y != 0
    deviation = (probability * (1 - probability) / n_elements) ** 0.5
    assert abs(float(kept.double().mean()) - (1 - probability)) < 5 * deviation
    scale = torch.tensor(1 / (1 - probability), dtype=dtype)
    torch.testing.assert_close(y[kept], scale.expand(int(kept.sum())))


def test_masks_are_independent_between_elements_and_calls() -> None:
    torch.manual_seed(0)
    masks = torch.stack([dropout(torch.ones(64), 0.3, True) != 0 for _ in range(4000)]).float()
    limit = 5 / 4000**0.5
    assert torch.corrcoef(masks.T).fill_diagonal_(0).abs().max() < limit
    following = torch.corrcoef(torch.cat((masks[1:, :8], masks[:-1, :8]), 1).T)[:8, 8:]
    assert following.abs().max() < limit


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gradient_has_the_mask_of_the_output(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x = torch.randn(7, 33, dtype=dtype).transpose(0, 1).requires_grad_()
    y = dropout(x, 0.4, True)
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    expected = torch.where(y != 0, torch.full_like(y, 1 / 0.6), 0)
    torch.testing.assert_close(grad, expected)


def test_masks_depend_on_the_seed_and_not_on_threads() -> None:
    x = torch.ones(SECTION_WORDS * 3)
    threads = torch.get_num_threads()
    results = []
    try:
        for n_threads, seed in ((1, 3), (2, 3), (1, 4)):
            torch.set_num_threads(n_threads)
            torch.manual_seed(seed)
            results.append(dropout(x, 0.5, True))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_recomputation_draws_the_same_mask() -> None:
    x = torch.randn(50, 20, requires_grad=True)

    def run(x: torch.Tensor) -> torch.Tensor:
        return dropout(x.square(), 0.5, True).square()

    torch.manual_seed(0)
    (expected,) = torch.autograd.grad(run(x).sum(), x)
    torch.manual_seed(0)
    (actual,) = torch.autograd.grad(checkpoint(run, x, use_reentrant=False).sum(), x)
    assert torch.equal(actual, expected)


def test_one_mask_applies_to_several_tensors() -> None:
    mask = DropoutMask(1000, 0.5, torch.bfloat16)
    a, b, c = torch.ones(1000, dtype=torch.bfloat16), torch.ones(10, 100, dtype=torch.bfloat16), torch.ones(1000).bfloat16()
    mask.apply_(a, b)
    mask.apply_(c)
    assert torch.equal(a, b.flatten())
    assert torch.equal(a, c)


def test_dropout_is_inactive_outside_training_and_total_at_one() -> None:
    x = torch.randn(5)
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x
    assert not dropout(x, 1.0, True).any()
