"""Minimal reproductions of torch's errors on the CPU, because of which compiled models use `eager` for flex attention.

A test that passes here shows that torch has fixed its error; then the fallback in
`gptkit/nn/attention/backends/flex.py` can be reconsidered. Seen with torch 2.13.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

B, H, T, D = 2, 4, 40, 8


def rotated(x_BHTD: Tensor) -> Tensor:
    angles = torch.arange(T)[:, None] * torch.arange(D // 2) * 0.1
    first, second = x_BHTD.chunk(2, dim=-1)
    return torch.cat((first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()), dim=-1)


def attend(x_BTE: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """Compute attention with one packed projection and rotated queries and keys."""
    q, k, v = (x_BTE @ weight.T).view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)
    mask = create_block_mask(lambda row, head, query, key: key <= query, None, None, T, T, device="cpu")
    uncompiled: Callable[..., Any] = flex_attention
    return uncompiled(rotated(q), rotated(k), v, block_mask=mask, **options)  # type: ignore[no-any-return]


def biased(x_BTE: Tensor, weight: Tensor) -> Tensor:
    """Compute attention with a distance bias, whose slopes and positions are computed in the graph."""
    slopes_H, positions_T = 2.0 ** -torch.arange(1, H + 1), torch.arange(T)

    def add(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score - slopes_H[head] * (positions_T[query] - positions_T[key])

    return attend(x_BTE, weight, score_mod=add)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(attend, marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason="wrong numbers")),
        pytest.param(biased, marks=pytest.mark.xfail(strict=True, reason="inductor cannot lower it")),
    ],
)
def test_compiled_flex_attention_equals_uncompiled(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    x_BTE, weight = torch.randn(B, T, H * D, generator=generator), torch.randn(3 * H * D, H * D, generator=generator) * 0.2
    expected = function(x_BTE, weight)
    torch.compiler.reset()
    actual = torch.compile(function, fullgraph=True)(x_BTE, weight)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
