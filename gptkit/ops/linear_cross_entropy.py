"""Cross-entropy of a linear layer's outputs, without materializing all logits.

A language model's logits are by far its largest tensor (batch · tokens · vocabulary), and
``F.cross_entropy(F.linear(x, w), targets)`` holds several copies of it until the backward pass. Here the logits are computed
one chunk of rows at a time. For each chunk, the forward pass computes the loss, replaces the logits in place by their
gradient, and adds the chunk's part to the gradients of x and w. The backward pass only scales these. The method is that of
Liger Kernel (arXiv 2410.10989).

Shapes: N rows, V vocabulary, E features, C rows of a chunk, R rows of a block.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["linear_cross_entropy"]

CHUNK_BYTES = 64 << 20
"""Approximate size in bytes of the logits that are held at one time."""

BLOCK_BYTES = 16 << 20
"""Approximate size in bytes of the part of a low-precision chunk that is held in fp32."""

ALIGNED = 16
"""Rows of logits in full precision are padded to a multiple of this: products into unaligned rows are a third slower."""

TILE_BYTES = 6 << 20
"""Size in bytes of the part of a low-precision weight gradient computed at once, which fits into the CPU's cache."""


class _Settings(NamedTuple):
    scale: float
    softcap: float
    """0 for none."""
    z_loss: float
    smoothing: float
    ignored: int
    dtype: torch.dtype
    """The dtype of the matrix products."""


def linear_cross_entropy(
    x_NE: Tensor,
    weight_VE: Tensor,
    targets_N: Tensor,
    bias_V: Tensor | None = None,
    *,
    scale: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    smoothing: float = 0.0,
    ignored: int = -100,
) -> Tensor:
    """Compute the mean over rows of −ln softmax(logits)[target] with logits = scale · (W·x + b), optionally softcapped.

    Products run in autocast's dtype where autocast is enabled; the softmax, its statistics and the sums are in fp32 (fp64
    for fp64 inputs). The result can be differentiated once. Meta tensors and torch.compile are supported.

    Args:
        x_NE: the inputs.
        weight_VE: the layer's weight.
        targets_N: the target class of each row, or `ignored`.
        bias_V: the layer's bias.
        scale: factor of the layer's outputs.
        softcap: c in c · tanh(logits / c), applied after the scale.
        z_loss: weight of mean (ln Σ exp logits)², added to the loss.
        smoothing: label smoothing ε: the target has probability 1 − ε, and ε is spread evenly over all classes.
        ignored: a target with this value excludes its row from the mean and from all gradients.

    Returns:
        A scalar in fp32 (fp64 for fp64 inputs). 0, with zero gradients, where every target is ignored.
    """
    dtype = x_NE.dtype
    kind = x_NE.device.type
    if dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    settings = _Settings(scale, softcap or 0.0, z_loss, smoothing, ignored, dtype)
    if torch.is_grad_enabled():
        result: Tensor = _LinearCrossEntropy.apply(x_NE, weight_VE, bias_V, targets_N, settings)  # type: ignore[no-untyped-call]
        return result
    return _run(x_NE, weight_VE, bias_V, targets_N, settings, (False, False, False))[0]


class _LinearCrossEntropy(torch.autograd.Function):
    """Compute the loss and the gradients in the forward pass; scale the gradients in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x_NE: Tensor, weight_VE: Tensor, bias_V: Tensor | None, targets_N: Tensor, settings: _Settings
    ) -> Tensor:
        ctx.needs = tuple(ctx.needs_input_grad[:3])
        loss, *grads = _run(x_NE, weight_VE, bias_V, targets_N, settings, ctx.needs)
        # Saved, not stored as attributes: torch releases them when this node is done, so that a gradient can become the
        # parameter's `grad` without a copy.
        ctx.save_for_backward(*grads)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = [result if need else None for result, need in zip(ctx.saved_tensors, ctx.needs, strict=True)]
        # Reading the factor from a GPU to compare it with 1 would synchronize.
        if grad.device.type != "cpu" or torch.compiler.is_compiling() or grad.item() != 1:
            saved = [None if result is None else result * grad for result in saved]
        return (*saved, None, None)


def _run(
    x_NE: Tensor,
    weight_VE: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    settings: _Settings,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the loss and the gradients of x, weight and bias; empty tensors in place of those that are not needed."""
    if torch.compiler.is_compiling() or x_NE.is_meta:
        result: tuple[Tensor, Tensor, Tensor, Tensor] = _opaque(x_NE, weight_VE, bias_V, targets_N, *settings, *needs)
        return result
    with torch.autocast(x_NE.device.type, enabled=False):
        return _by_chunks(x_NE, weight_VE, bias_V, targets_N, settings, needs)


def _by_chunks(
    x_NE: Tensor,
    weight_VE: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    settings: _Settings,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    need_x, need_weight, need_bias = needs
    dtype, exact = settings.dtype, _exact(settings.dtype)
    n_rows, n_classes = x_NE.shape[0], weight_VE.shape[0]
    weight = weight_VE.to(dtype)
    bias = None if bias_V is None else bias_V.to(dtype) * settings.scale

    valid_N = targets_N != settings.ignored
    # The weight of a row in the mean; 0 where all rows are ignored.
    share_N = valid_N.to(exact) / valid_N.sum().clamp_min(1)
    targets_N = torch.where(valid_N, targets_N, 0)

    grad_x, grad_weight, grad_bias = _gradients(x_NE, weight_VE, bias_V, needs)
    loss_N = torch.empty(n_rows, dtype=exact, device=x_NE.device)
    n_chunk = _rows(n_rows, n_classes * dtype.itemsize, CHUNK_BYTES)
    padding = -n_classes % ALIGNED if dtype == exact else 0
    padded = torch.empty(n_chunk, n_classes + padding, dtype=dtype, device=x_NE.device)
    for first in range(0, n_rows, n_chunk):
        rows = slice(first, min(first + n_chunk, n_rows))
        x_CE = x_NE[rows].to(dtype)
        if settings.scale != 1:
            x_CE = x_CE * settings.scale
        padded_CV = padded[: x_CE.shape[0]]
        logits_CV = padded_CV[:, :n_classes]
        if bias is None:
            torch.mm(x_CE, weight.t(), out=logits_CV)
        else:
            torch.addmm(bias, x_CE, weight.t(), out=logits_CV)
        _to_gradient_(padded_CV, padding, targets_N[rows], loss_N[rows], settings, any(needs))
        share_C1 = share_N[rows, None]
        if need_x:
            _product(logits_CV, weight, grad_x[rows]).mul_((share_C1 * settings.scale).to(grad_x.dtype))
        if need_weight:
            _add_product_(grad_weight, logits_CV, x_CE * share_C1.to(dtype), first == 0)
        if need_bias:
            grad_bias.add_(torch.mv(logits_CV.t(), (share_C1[:, 0] * settings.scale).to(dtype)))
    loss = torch.where(valid_N, loss_N, 0).mul_(share_N).sum()
    return loss, grad_x, grad_weight.to(weight_VE.dtype), grad_bias if bias_V is None else grad_bias.to(bias_V.dtype)


def _to_gradient_(
    logits_CV: Tensor, padding: int, targets_C: Tensor, loss_C: Tensor, settings: _Settings, needed: bool
) -> None:
    """Write each row's loss, and replace its logits by their gradient where that is needed."""
    exact = _exact(logits_CV.dtype)
    if logits_CV.dtype == exact:
        _to_exact_gradient_(logits_CV, padding, targets_C, loss_C, settings, needed)
        return
    n_rows, n_classes = logits_CV.shape
    n_block = _rows(n_rows, n_classes * exact.itemsize, BLOCK_BYTES if logits_CV.device.type == "cpu" else 1 << 60)
    block = torch.empty(n_block, n_classes, dtype=exact, device=logits_CV.device)
    for first in range(0, n_rows, n_block):
        rows = slice(first, min(first + n_block, n_rows))
        block_RV = block[: rows.stop - first].copy_(logits_CV[rows])
        _to_exact_gradient_(block_RV, padding, targets_C[rows], loss_C[rows], settings, needed)
        if needed:
            logits_CV[rows].copy_(block_RV)


def _to_exact_gradient_(
    logits_RV: Tensor, padding: int, targets_R: Tensor, loss_R: Tensor, settings: _Settings, needed: bool
) -> None:
    targets_R1 = targets_R[:, None]
    slope_RV = None
    if settings.softcap:
        logits_RV.div_(settings.softcap).tanh_()
        if needed:
            slope_RV = torch.addcmul(logits_RV.new_ones(()), logits_RV, logits_RV, value=-1)
        logits_RV.mul_(settings.softcap)
    target_R1 = logits_RV.gather(1, targets_R1)
    n_classes = logits_RV.shape[1] - padding
    if settings.smoothing:
        # The cross-entropy to the smoothed target: ε of the target's logit is replaced by the mean of all logits.
        target_R1.mul_(1 - settings.smoothing)
        target_R1 += settings.smoothing * logits_RV[:, :n_classes].mean(1, keepdim=True)
    if padding:
        logits_RV[:, -padding:] = -math.inf
    # Of the passes over a row, exp is the most expensive. Softmax needs one. Since the largest probability is never small,
    # the logarithm of the sum follows from it with full precision.
    largest_R1 = logits_RV.amax(1, keepdim=True)
    torch.softmax(logits_RV, 1, out=logits_RV)
    normalizer_R1 = largest_R1.sub_(logits_RV.amax(1, keepdim=True).log_())
    loss_R1 = normalizer_R1 - target_R1
    if settings.z_loss:
        if needed:
            logits_RV.mul_(1 + 2 * settings.z_loss * normalizer_R1)
        loss_R1 += settings.z_loss * normalizer_R1.square()
    loss_R.copy_(loss_R1[:, 0])
    if needed:
        peak = logits_RV.new_full((1, 1), settings.smoothing - 1).expand_as(targets_R1)
        logits_RV.scatter_add_(1, targets_R1, peak)
        if settings.smoothing:
            logits_RV[:, :n_classes] -= settings.smoothing / n_classes
        if slope_RV is not None:
            logits_RV.mul_(slope_RV)


def _product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Write a·b into `out`, of any dtype."""
    return torch.mm(a, b, out=out) if out.dtype == a.dtype else out.copy_(torch.mm(a, b))


def _add_product_(total_VE: Tensor, grad_CV: Tensor, x_CE: Tensor, first: bool) -> None:
    """Add gradᵀ·x to the total, which is in fp32 even where the factors are not; the `first` product overwrites it."""
    if total_VE.dtype == x_CE.dtype:
        torch.addmm(total_VE, grad_CV.t(), x_CE, beta=0 if first else 1, out=total_VE)
        return
    n_classes, d_model = total_VE.shape
    size = n_classes
    if total_VE.device.type == "cpu":
        size = _rows(n_classes, d_model * x_CE.element_size(), TILE_BYTES)
    tile = torch.empty(size, d_model, dtype=x_CE.dtype, device=x_CE.device)
    exact = torch.empty_like(tile, dtype=total_VE.dtype)
    for start in range(0, n_classes, size):
        part_VE = total_VE[start : start + size]
        n_part = part_VE.shape[0]
        torch.mm(grad_CV[:, start : start + size].t(), x_CE, out=tile[:n_part])
        if first:
            part_VE.copy_(tile[:n_part])
        else:
            # Cast first: adding mixed dtypes is several times slower on a CPU.
            part_VE.add_(exact[:n_part].copy_(tile[:n_part]))


def _gradients(
    x_NE: Tensor, weight_VE: Tensor, bias_V: Tensor | None, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Allocate the gradients: that of x in its dtype, the sums in fp32; empty where not needed."""
    need_x, need_weight, need_bias = needs
    exact = _exact(x_NE.dtype)
    return (
        torch.empty_like(x_NE, memory_format=torch.contiguous_format) if need_x else x_NE.new_empty(0),
        # Overwritten by the first chunk; zeros for the case without chunks.
        torch.empty_like(weight_VE, dtype=exact, memory_format=torch.contiguous_format)
        if need_weight and x_NE.shape[0]
        else weight_VE.new_zeros(weight_VE.shape if need_weight else 0),
        bias_V.new_zeros(bias_V.shape, dtype=exact) if bias_V is not None and need_bias else x_NE.new_empty(0),
    )


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _rows(n_rows: int, row_bytes: int, limit: int) -> int:
    """Return the number of rows per part: parts of equal size, none far above the limit."""
    parts = math.ceil(n_rows * row_bytes / limit)
    return max(1, math.ceil(n_rows / max(1, parts)))


@torch.library.custom_op("gptkit::linear_cross_entropy", mutates_args=())
def _opaque(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    scale: float,
    softcap: float,
    z_loss: float,
    smoothing: float,
    ignored: int,
    dtype: torch.dtype,
    need_x: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same computation as one operator, which torch.compile does not trace into."""
    settings = _Settings(scale, softcap, z_loss, smoothing, ignored, dtype)
    with torch.autocast(x.device.type, enabled=False):
        return _by_chunks(x, weight, bias, targets, settings, (need_x, need_weight, need_bias))


@_opaque.register_fake
def _shapes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    scale: float,
    softcap: float,
    z_loss: float,
    smoothing: float,
    ignored: int,
    dtype: torch.dtype,
    need_x: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty((), dtype=_exact(dtype)),
        torch.empty_like(x) if need_x else x.new_empty(0),
        torch.empty_like(weight) if need_weight else weight.new_empty(0),
        torch.empty_like(bias) if bias is not None and need_bias else x.new_empty(0),
    )
