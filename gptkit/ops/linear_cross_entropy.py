"""Cross-entropy of a linear layer's outputs, without materializing all logits.

A language model's logits are by far its largest tensor (batch · tokens · vocabulary), and
``F.cross_entropy(F.linear(x, w), targets)`` holds several copies of it until the backward pass. Here the logits are computed
one chunk of rows at a time. For each chunk, the forward pass computes the loss, replaces the logits in place by their
gradient, and adds the chunk's part to the gradients of x and w. The backward pass only scales these. The method is that of
Liger Kernel (arXiv 2410.10989).

Shapes: N rows, V vocabulary, E features, C rows of a chunk.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gptkit.ops.cross_entropy_rows import ClassPart, Settings, exact_dtype, rows_per_part, to_gradient_
from gptkit.ops.softcap import Softcap, SoftcapForm

__all__ = ["linear_cross_entropy"]

CHUNK_BYTES = 104 << 20
"""Approximate size in bytes of the logits that are held at one time: 1,024 rows of GPT-2's vocabulary in bf16."""

ALIGNED = 16
"""Rows of logits in full precision are padded to a multiple of this: products into unaligned rows are a third slower."""

TILE_CLASSES = 2048
"""Classes per low-precision product with the logits' gradient on a CPU: the factors stay in the cache. Products for the
gradient of x take 5 % less time than with all classes at once, those of the weight up to 40 % less."""


def linear_cross_entropy(
    x_NE: Tensor,
    weight_VE: Tensor,
    targets_N: Tensor,
    bias_V: Tensor | None = None,
    *,
    scale: float = 1.0,
    softcap: float | Softcap | None = None,
    z_loss: float = 0.0,
    smoothing: float = 0.0,
    ignored: int = -100,
    part: ClassPart | None = None,
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
        softcap: c in c · tanh(logits / c), or another soft bound; applied after the scale.
        z_loss: weight of mean (ln Σ exp logits)², added to the loss.
        smoothing: label smoothing ε: the target has probability 1 − ε, and ε is spread evenly over all classes.
        ignored: a target with this value excludes its row from the mean and from all gradients.
        part: the classes that weight and bias are of, if several processes hold them; all of them compute the same rows, and
            have the same result and gradient of x. Not supported by torch.compile.

    Returns:
        A scalar in fp32 (fp64 for fp64 inputs). 0, with zero gradients, where every target is ignored.
    """
    dtype = x_NE.dtype
    kind = x_NE.device.type
    if dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    if softcap is not None and not isinstance(softcap, Softcap):
        softcap = Softcap(softcap, softcap)
    settings = Settings(scale, softcap, z_loss, smoothing, ignored, dtype)
    if torch.is_grad_enabled():
        result: Tensor = _LinearCrossEntropy.apply(x_NE, weight_VE, bias_V, targets_N, settings, part)  # type: ignore[no-untyped-call]
        return result
    return _run(x_NE, weight_VE, bias_V, targets_N, settings, (False, False, False), part)[0]


class _LinearCrossEntropy(torch.autograd.Function):
    """Compute the loss and the gradients in the forward pass; scale the gradients in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NE: Tensor,
        weight_VE: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        settings: Settings,
        part: ClassPart | None,
    ) -> Tensor:
        ctx.needs = tuple(ctx.needs_input_grad[:3])
        loss, *grads = _run(x_NE, weight_VE, bias_V, targets_N, settings, ctx.needs, part)
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
        return (*saved, None, None, None)


def _run(
    x_NE: Tensor,
    weight_VE: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    settings: Settings,
    needs: tuple[bool, bool, bool],
    part: ClassPart | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the loss and the gradients of x, weight and bias; empty tensors in place of those that are not needed."""
    if part is None and (torch.compiler.is_compiling() or x_NE.is_meta):
        scale, softcap, *others = settings
        cap, width, form, shift = softcap or (0.0, 1.0, "tanh", 0.0)
        result: tuple[Tensor, Tensor, Tensor, Tensor] = _opaque(
            x_NE, weight_VE, bias_V, targets_N, scale, cap, width, form, shift, *others, *needs
        )
        return result
    with torch.autocast(x_NE.device.type, enabled=False):
        loss, grad_x, *gradients = _by_chunks(x_NE, weight_VE, bias_V, targets_N, settings, needs, part)
    # Each process has the product with the weights of its classes.
    return loss, grad_x if part is None or not needs[0] else part.add(grad_x), gradients[0], gradients[1]


def _by_chunks(
    x_NE: Tensor,
    weight_VE: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    settings: Settings,
    needs: tuple[bool, bool, bool],
    part: ClassPart | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    need_x, need_weight, need_bias = needs
    dtype, exact = settings.dtype, exact_dtype(settings.dtype)
    n_rows, n_classes = x_NE.shape[0], weight_VE.shape[0]
    weight = weight_VE.to(dtype)
    bias = None if bias_V is None else bias_V.to(dtype) * settings.scale

    valid_N = targets_N != settings.ignored
    # The weight of a row in the mean; 0 where all rows are ignored.
    share_N = valid_N.to(exact) / valid_N.sum().clamp_min(1)
    targets_N = torch.where(valid_N, targets_N, 0)

    grad_x, grad_weight, grad_bias = _gradients(x_NE, weight_VE, bias_V, needs)
    loss_N = torch.empty(n_rows, dtype=exact, device=x_NE.device)
    n_chunk = rows_per_part(n_rows, n_classes * dtype.itemsize, CHUNK_BYTES)
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
        to_gradient_(padded_CV, padding, targets_N[rows], loss_N[rows], settings, any(needs), part)
        share_C1 = share_N[rows, None]
        if need_x:
            grad_x[rows] = _product(logits_CV, weight).mul_(share_C1 * settings.scale)
        if need_weight:
            _add_product_(grad_weight, logits_CV, x_CE * share_C1.to(dtype), first == 0)
        if need_bias:
            grad_bias.add_(torch.mv(logits_CV.t(), (share_C1[:, 0] * settings.scale).to(dtype)))
    loss = torch.where(valid_N, loss_N, 0).mul_(share_N).sum()
    return loss, grad_x, grad_weight.to(weight_VE.dtype), grad_bias if bias_V is None else grad_bias.to(bias_V.dtype)


def _product(grad_CV: Tensor, weight_VE: Tensor) -> Tensor:
    """Return grad·W, summed over tiles of classes in fp32 where the factors are in low precision."""
    exact = exact_dtype(grad_CV.dtype)
    size = _tile(grad_CV)
    total_CE = torch.mm(grad_CV[:, :size], weight_VE[:size]).to(exact)
    for start in range(size, grad_CV.shape[1], size):
        total_CE += torch.mm(grad_CV[:, start : start + size], weight_VE[start : start + size]).to(exact)
    return total_CE


def _tile(grad_CV: Tensor) -> int:
    """Return the number of classes per tile."""
    whole = grad_CV.device.type != "cpu" or grad_CV.dtype == exact_dtype(grad_CV.dtype)
    return grad_CV.shape[1] if whole else TILE_CLASSES


def _add_product_(total_VE: Tensor, grad_CV: Tensor, x_CE: Tensor, first: bool) -> None:
    """Add gradᵀ·x to the total, which is in fp32 even where the factors are not; the `first` product overwrites it."""
    if total_VE.dtype == x_CE.dtype:
        torch.addmm(total_VE, grad_CV.t(), x_CE, beta=0 if first else 1, out=total_VE)
        return
    n_classes, d_model = total_VE.shape
    size = min(n_classes, _tile(grad_CV))
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
    exact = exact_dtype(x_NE.dtype)
    return (
        torch.empty_like(x_NE, memory_format=torch.contiguous_format) if need_x else x_NE.new_empty(0),
        # Overwritten by the first chunk; zeros for the case without chunks.
        torch.empty_like(weight_VE, dtype=exact, memory_format=torch.contiguous_format)
        if need_weight and x_NE.shape[0]
        else weight_VE.new_zeros(weight_VE.shape if need_weight else 0),
        bias_V.new_zeros(bias_V.shape, dtype=exact) if bias_V is not None and need_bias else x_NE.new_empty(0),
    )


@torch.library.custom_op("gptkit::linear_cross_entropy", mutates_args=())
def _opaque(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    scale: float,
    cap: float,
    width: float,
    form: str,
    shift: float,
    z_loss: float,
    smoothing: float,
    ignored: int,
    dtype: torch.dtype,
    need_x: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same computation as one operator, which torch.compile does not trace into."""
    softcap = Softcap(cap, width, cast("SoftcapForm", form), shift) if cap else None
    settings = Settings(scale, softcap, z_loss, smoothing, ignored, dtype)
    with torch.autocast(x.device.type, enabled=False):
        return _by_chunks(x, weight, bias, targets, settings, (need_x, need_weight, need_bias))


@_opaque.register_fake
def _shapes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    scale: float,
    cap: float,
    width: float,
    form: str,
    shift: float,
    z_loss: float,
    smoothing: float,
    ignored: int,
    dtype: torch.dtype,
    need_x: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty((), dtype=exact_dtype(dtype)),
        torch.empty_like(x) if need_x else x.new_empty(0),
        torch.empty_like(weight) if need_weight else weight.new_empty(0),
        torch.empty_like(bias) if bias is not None and need_bias else x.new_empty(0),
    )
