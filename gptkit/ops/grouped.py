"""Grouped matrix products: the rows of each expert times that expert's weight, in one operation.

Rows are sorted by expert, so an expert's rows are one slice, and `ends_X` holds the end of each slice. The products are
registered as custom operators (``torch.ops.gptkit``): `torch.compile` treats each as one node of static shape, and no shape
depends on the number of rows of an expert.

The implementation depends on the device:

- CPU: one matrix product per expert that has rows. Reading the slices' ends does not synchronize.
- CUDA in bf16 on compute capability 9 and newer: torch's grouped kernel, without synchronization.
- otherwise: rows in blocks of one size, each block with its expert's weight, as one batched product, without
  synchronization. Padding at most doubles the number of rows.

Shapes: N tokens, K experts chosen for a token, M = N · K rows, X experts, I inputs, O outputs, Z blocks of R rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

__all__ = ["Groups", "expert_slices", "group_rows", "grouped_linear", "in_torch_operators", "reorder"]

_EXPORTED_BLOCK = 16
"""Rows of a block in exported programs, where the number of rows varies: few for one token, and few copies of matrices."""
_only_torch = False  # not a context variable, which torch.compile does not trace


@contextmanager
def in_torch_operators() -> Iterator[None]:
    """Compute grouped products with operators of torch only, for programs that are used without gptkit."""
    global _only_torch
    before, _only_torch = _only_torch, True
    try:
        yield
    finally:
        _only_torch = before


@dataclass(frozen=True)
class Groups:
    """Assignment of rows to experts. A row is one (token, chosen expert) pair.

    Attributes:
        n_tokens: N.
        expert_M: the expert of each row; sorted.
        ends_X: the row after the last one of each expert, int32.
        order_M: for each sorted row, its index among the unsorted ones (token · K + choice).
        back_M: for each unsorted row, its index among the sorted ones.
        outside: whether the last rows may belong to no expert: their numbers of experts are X or more.
    """

    n_tokens: int
    expert_M: Tensor
    ends_X: Tensor
    order_M: Tensor
    back_M: Tensor
    outside: bool = False

    def within(self, x_MI: Tensor) -> Tensor:
        """Replace the rows that belong to no expert by zeros, and their gradients as well."""
        if not self.outside:
            return x_MI
        rows_M1 = torch.arange(x_MI.shape[0], device=x_MI.device)[:, None]
        return torch.where(rows_M1 < self.ends_X[-1], x_MI, 0.0)


def group_rows(experts_NK: Tensor, n_experts: int, *, outside: bool = False) -> Groups:
    """Sort the (token, expert) pairs by expert; the rows of one expert keep their order.

    Args:
        experts_NK: the experts chosen for each token.
        n_experts: X.
        outside: whether numbers of X or more occur; their rows belong to no expert, and are the last ones.
    """
    expert_M, order_M = experts_NK.flatten().sort(stable=True)
    numbers_X = torch.arange(n_experts, device=expert_M.device)
    ends_X = _counted(expert_M, numbers_X, int32=True)
    rows_M = torch.arange(order_M.shape[0], device=order_M.device)
    back_M = torch.empty_like(order_M).scatter_(0, order_M, rows_M)
    if outside:
        expert_M = expert_M.clamp(max=n_experts - 1)
    return Groups(experts_NK.shape[0], expert_M, ends_X, order_M, back_M, outside)


def _counted(sorted_I: Tensor, values_J: Tensor, *, int32: bool = False) -> Tensor:
    """Return for each value how many of the sorted numbers are not greater, (J,)."""
    if _only_torch:
        # ONNX has no binary search.
        count_J = (sorted_I <= values_J[:, None]).long().sum(-1)
        return count_J.to(torch.int32) if int32 else count_J
    return torch.searchsorted(sorted_I, values_J, right=True, out_int32=int32)


def reorder(x_ME: Tensor, order_M: Tensor, back_M: Tensor) -> Tensor:
    """Permute the rows of x.

    Args:
        x_ME: the rows.
        order_M: for each row of the result, its index in x.
        back_M: the inverse permutation, which the backward pass applies.
    """
    if not (torch.is_grad_enabled() and x_ME.requires_grad):
        return x_ME.index_select(0, order_M)
    reordered: Tensor = _Reorder.apply(x_ME, order_M, back_M)  # type: ignore[no-untyped-call]
    return reordered


class _Reorder(torch.autograd.Function):
    """Indexing whose gradient is indexing too: torch's adds into zeros, which is slower and not deterministic on CUDA."""

    @staticmethod
    def forward(ctx: Any, x_ME: Tensor, order_M: Tensor, back_M: Tensor) -> Tensor:
        ctx.save_for_backward(order_M, back_M)
        return x_ME.index_select(0, order_M)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        order_M, back_M = ctx.saved_tensors
        return reorder(gradients[0], back_M, order_M), None, None


def grouped_linear(x_MI: Tensor, weight_XOI: Tensor, bias_XO: Tensor | None, groups: Groups) -> Tensor:
    """Compute y_m = W_x · x_m + b_x for the expert x of each row m; autocast applies as it does to `F.linear`.

    Args:
        x_MI: the rows, sorted by expert.
        weight_XOI: the weight of each expert.
        bias_XO: the bias of each expert, or None.
        groups: the assignment of rows to experts.

    Returns:
        (M, O); rows that belong to no expert are zero, and no product is computed for them on CPUs and by torch's kernel.
    """
    x_MI = groups.within(x_MI)
    device = x_MI.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x_MI, weight_XOI = x_MI.to(dtype), weight_XOI.to(dtype)
        bias_XO = None if bias_XO is None else bias_XO.to(dtype)
    # Decoding on the CPU skips the dispatcher, which takes longer than the product of one token.
    y_MO: Tensor
    plain = device == "cpu" and not torch.compiler.is_compiling() and not torch.is_grad_enabled() and type(x_MI) is Tensor
    multiply = _product if plain else torch.ops.gptkit.grouped_mm
    if _only_torch:
        y_MO = blockwise_mm(x_MI, weight_XOI, groups.ends_X, size=_EXPORTED_BLOCK)
    else:
        y_MO = multiply(x_MI, weight_XOI, groups.ends_X)
    # The products leave the other rows undefined.
    return groups.within(y_MO if bias_XO is None else y_MO + bias_XO[groups.expert_M])


@torch.library.custom_op("gptkit::grouped_mm", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor ends) -> Tensor")
def _grouped_mm(x_MI: Tensor, weight_XOI: Tensor, ends_X: Tensor) -> Tensor:
    """Compute y_m = W_x · x_m."""
    return _product(x_MI, weight_XOI, ends_X)


def _product(x_MI: Tensor, weight_XOI: Tensor, ends_X: Tensor) -> Tensor:
    x_MI = x_MI.contiguous()
    y_MO = x_MI.new_empty(x_MI.shape[0], weight_XOI.shape[1])
    if y_MO.numel() == 0:
        return y_MO
    if x_MI.device.type == "cpu":
        for index, first, end in expert_slices(ends_X):
            if end > first:
                torch.mm(x_MI[first:end], weight_XOI[index].T, out=y_MO[first:end])
        return y_MO
    if _has_grouped_kernel(x_MI, *weight_XOI.shape[1:]):
        return torch._grouped_mm(x_MI, weight_XOI.mT, offs=ends_X)
    return blockwise_mm(x_MI, weight_XOI, ends_X)


@torch.library.custom_op("gptkit::grouped_outer", mutates_args=(), schema="(Tensor y, Tensor x, Tensor ends) -> Tensor")
def _grouped_outer(y_MO: Tensor, x_MI: Tensor, ends_X: Tensor) -> Tensor:
    """Compute Σ y_m ⊗ x_m over the rows of each expert, (X, O, I): the gradient of the weights."""
    y_MO, x_MI = y_MO.contiguous(), x_MI.contiguous()
    if x_MI.device.type == "cpu":
        sum_XOI = x_MI.new_empty(len(ends_X), y_MO.shape[1], x_MI.shape[1])
        for index, first, end in expert_slices(ends_X):
            if end > first:
                torch.mm(y_MO[first:end].T, x_MI[first:end], out=sum_XOI[index])
            else:
                sum_XOI[index].zero_()
        return sum_XOI
    if x_MI.shape[0] and _has_grouped_kernel(x_MI, y_MO.shape[1], x_MI.shape[1]):
        return torch._grouped_mm(y_MO.T, x_MI, offs=ends_X)
    return blockwise_outer(y_MO, x_MI, ends_X)


@_grouped_mm.register_fake
def _(x_MI: Tensor, weight_XOI: Tensor, ends_X: Tensor) -> Tensor:
    return x_MI.new_empty(x_MI.shape[0], weight_XOI.shape[1])


@_grouped_outer.register_fake
def _(y_MO: Tensor, x_MI: Tensor, ends_X: Tensor) -> Tensor:
    return x_MI.new_empty(ends_X.shape[0], y_MO.shape[1], x_MI.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _mm_gradients(ctx: Any, gradient_MO: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x_MI, weight_XOI, ends_X = ctx.saved_tensors
    for_x, for_weight, _ = ctx.needs_input_grad
    x_gradient = torch.ops.gptkit.grouped_mm(gradient_MO, weight_XOI.mT, ends_X) if for_x else None
    weight_gradient = torch.ops.gptkit.grouped_outer(gradient_MO, x_MI, ends_X) if for_weight else None
    return x_gradient, weight_gradient, None


def _outer_gradients(ctx: Any, gradient_XOI: Tensor) -> tuple[Tensor, Tensor, None]:
    y_MO, x_MI, ends_X = ctx.saved_tensors
    y_gradient = torch.ops.gptkit.grouped_mm(x_MI, gradient_XOI, ends_X)
    return y_gradient, torch.ops.gptkit.grouped_mm(y_MO, gradient_XOI.mT, ends_X), None


_grouped_mm.register_autograd(_mm_gradients, setup_context=_keep)
_grouped_outer.register_autograd(_outer_gradients, setup_context=_keep)


@register_flop_formula(torch.ops.gptkit.grouped_mm)
def _mm_flops(x_shape: Any, weight_shape: Any, *_: Any, **__: Any) -> int:
    flops: int = 2 * x_shape[0] * weight_shape[1] * weight_shape[2]
    return flops


@register_flop_formula(torch.ops.gptkit.grouped_outer)
def _outer_flops(y_shape: Any, x_shape: Any, *_: Any, **__: Any) -> int:
    flops: int = 2 * x_shape[0] * y_shape[1] * x_shape[1]
    return flops


def expert_slices(ends_X: Tensor) -> list[tuple[int, int, int]]:
    """Return expert, first row and end of each slice that is not empty; synchronizes with the device."""
    ends = ends_X.tolist()
    return list(zip(range(len(ends)), [0, *ends[:-1]], ends, strict=True))


def _has_grouped_kernel(x_MI: Tensor, *sizes: int) -> bool:
    # The kernel reads 16 bytes at a time: eight numbers of bf16.
    return (
        x_MI.device.type == "cuda"
        and x_MI.dtype == torch.bfloat16
        and hasattr(torch, "_grouped_mm")
        and torch.cuda.get_device_capability(x_MI.device)[0] >= 9
        and all(size % 8 == 0 for size in sizes)
    )


@dataclass(frozen=True)
class _Blocks:
    """Rows in Z blocks of R, enough for any distribution of M rows over X experts, padded after each expert's rows."""

    expert_Z: Tensor
    row_ZR: Tensor
    filled_ZR: Tensor
    place_M: Tensor

    def take(self, x_MI: Tensor) -> Tensor:
        """Gather rows into blocks, (Z, R, I), with zeros as padding."""
        return x_MI[self.row_ZR].masked_fill(~self.filled_ZR[..., None], 0)


def _blocks(ends_X: Tensor, n_rows: int, size: int | None = None) -> _Blocks:
    ends_X = ends_X.long()
    n_experts, device = len(ends_X), ends_X.device
    if size is None:
        size = -(-n_rows // n_experts)
        n_blocks = min(n_rows, n_rows // size + n_experts)
    else:
        # One more than the rows, since a symbol that may be 1 would be compared with it.
        n_blocks = torch.sym_min(n_rows + 1, n_rows // size + n_experts)  # type: ignore[no-untyped-call]
    starts_X = torch.cat((ends_X.new_zeros(1), ends_X[:-1]))
    blocks_X = (ends_X - starts_X + size - 1) // size
    last_X = blocks_X.cumsum(0)
    first_X = last_X - blocks_X
    block_Z = torch.arange(n_blocks, device=device)
    expert_Z = _counted(last_X, block_Z).clamp(max=n_experts - 1)
    begin_Z = starts_X[expert_Z] + (block_Z - first_X[expert_Z]) * size
    row_ZR = begin_Z[:, None] + torch.arange(size, device=device)
    row_M = torch.arange(n_rows, device=device)
    expert_M = _counted(ends_X, row_M).clamp(max=n_experts - 1)  # also rows of no expert, whose products are not used
    place_M = first_X[expert_M] * size + row_M - starts_X[expert_M]
    return _Blocks(expert_Z, row_ZR.clamp(max=n_rows - 1), row_ZR < ends_X[expert_Z, None], place_M)


def blockwise_mm(x_MI: Tensor, weight_XOI: Tensor, ends_X: Tensor, size: int | None = None) -> Tensor:
    """Compute `grouped_mm` by blocks of `size` rows; works on every device without synchronization."""
    blocks = _blocks(ends_X, x_MI.shape[0], size)
    y_ZRO = torch.bmm(blocks.take(x_MI), weight_XOI[blocks.expert_Z].mT)
    return y_ZRO.flatten(0, 1)[blocks.place_M]


def blockwise_outer(y_MO: Tensor, x_MI: Tensor, ends_X: Tensor) -> Tensor:
    """Compute `grouped_outer` by blocks; works on every device without synchronization."""
    sum_XOI = x_MI.new_zeros(len(ends_X), y_MO.shape[1], x_MI.shape[1])
    if x_MI.shape[0] == 0:
        return sum_XOI
    blocks = _blocks(ends_X, x_MI.shape[0])
    return sum_XOI.index_add_(0, blocks.expert_Z, torch.bmm(blocks.take(y_MO).mT, blocks.take(x_MI)))
