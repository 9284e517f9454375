"""Grouped products against their definition, for every implementation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gptkit.ops.grouped import Groups, blockwise_mm, blockwise_outer, group_rows, grouped_linear, in_torch_operators, reorder

SIZES = [(1, 2, 8, 5, 7), (9, 3, 8, 5, 7), (40, 2, 4, 6, 3), (3, 1, 1, 4, 4), (7, 2, 64, 4, 4)]
"""N tokens, K experts chosen for a token, X experts, I inputs, O outputs."""


def example(n_tokens: int, k: int, n_experts: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor, Groups]:
    generator = torch.Generator().manual_seed(n_tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double).requires_grad_()

    # The last expert of many is never chosen, and the first is popular.
    scores = torch.rand(n_tokens, n_experts, generator=generator)
    scores[:, 0] += 0.5
    scores[:, -1] -= 2
    experts_NK = scores.topk(k).indices
    weight, bias = normal(n_experts, outputs, inputs), normal(n_experts, outputs)
    return normal(n_tokens * k, inputs), weight, bias, group_rows(experts_NK, n_experts)


def one_by_one(x: Tensor, weight: Tensor, groups: Groups) -> Tensor:
    return torch.einsum("mi,moi->mo", x, weight[groups.expert_M])


def test_group_rows_sorts_by_expert() -> None:
    groups = group_rows(torch.tensor([[2, 0], [3, 2]]), 5)
    assert groups.n_tokens == 2
    assert groups.expert_M.tolist() == [0, 2, 2, 3]
    assert groups.ends_X.tolist() == [1, 1, 3, 4, 4]
    assert groups.order_M.tolist() == [1, 0, 3, 2]
    assert groups.order_M[groups.back_M].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_implementation_equals_the_sum(sizes: tuple[int, int, int, int, int]) -> None:
    x, weight, bias, groups = example(*sizes)
    wanted = one_by_one(x, weight, groups)
    torch.testing.assert_close(grouped_linear(x, weight, None, groups), wanted)
    torch.testing.assert_close(grouped_linear(x, weight, bias, groups), wanted + bias[groups.expert_M])
    torch.testing.assert_close(blockwise_mm(x, weight, groups.ends_X), wanted)
    y = torch.randn_like(wanted)
    outer = torch.ops.gptkit.grouped_outer(y, x, groups.ends_X)
    torch.testing.assert_close(outer, torch.autograd.grad(wanted, weight, y)[0])
    torch.testing.assert_close(blockwise_outer(y, x, groups.ends_X), outer)


@pytest.mark.parametrize("sizes", SIZES[:2], ids=str)
def test_gradients_equal_those_of_the_sum(sizes: tuple[int, int, int, int, int]) -> None:
    x, weight, bias, groups = example(*sizes)
    assert torch.autograd.gradcheck(lambda *given: grouped_linear(*given, groups), (x, weight, bias))
    assert torch.autograd.gradgradcheck(lambda *given: grouped_linear(*given, groups), (x, weight, bias))
    assert torch.autograd.gradcheck(lambda given: reorder(given, groups.order_M, groups.back_M), (x,))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_rows_of_no_expert_are_zero_and_have_no_gradient(sizes: tuple[int, int, int, int, int], wide: bool) -> None:
    x, weight, bias, _ = example(*sizes)
    n_tokens, k, n_experts, *_ = sizes
    scores = torch.rand(n_tokens, n_experts + k, generator=torch.Generator().manual_seed(0))
    scores[:, n_experts:] += float(wide)  # every row, or about half of them
    experts_NK = scores.topk(k).indices
    groups = group_rows(experts_NK, n_experts, outside=True)
    inside_M1 = (experts_NK.flatten()[groups.order_M] < n_experts)[:, None]
    wanted = torch.where(inside_M1, one_by_one(x, weight, groups) + bias[groups.expert_M], 0.0)
    tensors = (x, weight, bias)
    expected = torch.autograd.grad(wanted.square().sum(), tensors, retain_graph=True)
    forms = {"loop": grouped_linear(x, weight, bias, groups)}
    with in_torch_operators():
        forms["blocks"] = grouped_linear(x, weight, bias, groups)
    for name, actual in forms.items():
        torch.testing.assert_close(actual, wanted, msg=name)
        torch.testing.assert_close(torch.autograd.grad(actual.square().sum(), tensors), expected, msg=name)


def test_operators_pass_opcheck() -> None:
    x, weight, _, groups = example(*SIZES[1])
    torch.library.opcheck(torch.ops.gptkit.grouped_mm.default, (x, weight, groups.ends_X))
    y = torch.randn(len(x), 7, dtype=torch.double)
    torch.library.opcheck(torch.ops.gptkit.grouped_outer.default, (y, x.detach(), groups.ends_X))


def test_zero_rows_are_accepted() -> None:
    weight, ends = torch.randn(3, 4, 5), torch.zeros(3, dtype=torch.int32)
    assert torch.ops.gptkit.grouped_mm(torch.zeros(0, 5), weight, ends).shape == (0, 4)
    for outer in (torch.ops.gptkit.grouped_outer, blockwise_outer):
        assert torch.equal(outer(torch.zeros(0, 4), torch.zeros(0, 5), ends), torch.zeros(3, 4, 5))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_are_counted(device: str) -> None:
    x = torch.zeros(10, 5, device=device, requires_grad=True)
    weight = torch.zeros(3, 7, 5, device=device, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        groups = group_rows(torch.zeros(10, 1, dtype=torch.long, device=device), 3)
        grouped_linear(x, weight, None, groups).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 10 * 5 * 7
