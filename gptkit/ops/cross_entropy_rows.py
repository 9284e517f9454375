"""Cross-entropy of rows of logits, which are replaced in place by their gradients.

Shapes: V vocabulary (of a part), C rows of a chunk, R rows of a block.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gptkit.ops.softcap import Softcap, bound_

__all__ = ["ClassPart", "Settings", "exact_dtype", "rows_per_part", "to_gradient_"]

BLOCK_BYTES = 16 << 20
"""Approximate size in bytes of the part of a low-precision chunk that is held in fp32."""


class Settings(NamedTuple):
    scale: float
    softcap: Softcap | None
    z_loss: float
    smoothing: float
    ignored: int
    dtype: torch.dtype
    """The dtype of the matrix products."""


class ClassPart(Protocol):
    """The consecutive classes whose weights one of several processes holds, in equal parts."""

    @property
    def first(self) -> int:
        """The first class of the part."""

    @property
    def size(self) -> int:
        """Number of classes of each part."""

    @property
    def total(self) -> int:
        """Number of all classes."""

    def gather(self, x: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, in order; collective."""

    def add(self, x: Tensor) -> Tensor:
        """Return the sum over the processes; collective."""


def to_gradient_(
    logits_CV: Tensor,
    padding: int,
    targets_C: Tensor,
    loss_C: Tensor,
    settings: Settings,
    needed: bool,
    part: ClassPart | None,
) -> None:
    """Write each row's loss, and replace its logits by their gradient where that is needed."""
    exact = exact_dtype(logits_CV.dtype)
    if logits_CV.dtype == exact:
        _to_exact_gradient_(logits_CV, padding, targets_C, loss_C, settings, needed, part)
        return
    n_rows, n_classes = logits_CV.shape
    n_block = rows_per_part(n_rows, n_classes * exact.itemsize, BLOCK_BYTES if logits_CV.device.type == "cpu" else 1 << 60)
    block = torch.empty(n_block, n_classes, dtype=exact, device=logits_CV.device)
    for first in range(0, n_rows, n_block):
        rows = slice(first, min(first + n_block, n_rows))
        block_RV = block[: rows.stop - first].copy_(logits_CV[rows])
        _to_exact_gradient_(block_RV, padding, targets_C[rows], loss_C[rows], settings, needed, part)
        if needed:
            logits_CV[rows].copy_(block_RV)


def _to_exact_gradient_(
    logits_RV: Tensor,
    padding: int,
    targets_R: Tensor,
    loss_R: Tensor,
    settings: Settings,
    needed: bool,
    part: ClassPart | None,
) -> None:
    targets_R1 = targets_R[:, None]
    own_R1 = None
    if part is not None:
        targets_R1 = targets_R1 - part.first
        own_R1 = (targets_R1 >= 0) & (targets_R1 < part.size)
        targets_R1 = torch.where(own_R1, targets_R1, 0)
    slope_RV = None if settings.softcap is None else bound_(logits_RV, settings.softcap, needed)
    target_R1 = logits_RV.gather(1, targets_R1)
    n_classes = logits_RV.shape[1] - padding
    n_total = n_classes if part is None else part.total
    if own_R1 is not None:
        target_R1.mul_(own_R1)
    if settings.smoothing:
        # The cross-entropy to the smoothed target: ε of the target's logit is replaced by the mean of all logits.
        target_R1.mul_(1 - settings.smoothing)
        target_R1 += settings.smoothing * (n_classes / n_total) * logits_RV[:, :n_classes].mean(1, keepdim=True)
    if padding:
        logits_RV[:, -padding:] = -math.inf
    # Of the passes over a row, exp is the most expensive. Softmax needs one. Since the largest probability is never small,
    # the logarithm of the sum follows from it with full precision.
    largest_R1 = logits_RV.amax(1, keepdim=True)
    torch.softmax(logits_RV, 1, out=logits_RV)
    normalizer_R1 = largest_R1.sub_(logits_RV.amax(1, keepdim=True).log_())
    if part is not None:
        normalizer_R1, target_R1 = _over_parts_(logits_RV, normalizer_R1, target_R1, part)
    loss_R1 = normalizer_R1 - target_R1
    if settings.z_loss:
        if needed:
            logits_RV.mul_(1 + 2 * settings.z_loss * normalizer_R1)
        loss_R1 += settings.z_loss * normalizer_R1.square()
    loss_R.copy_(loss_R1[:, 0])
    if needed:
        peak = logits_RV.new_full((1, 1), settings.smoothing - 1).expand_as(targets_R1)
        if own_R1 is not None:
            peak = peak * own_R1
        logits_RV.scatter_add_(1, targets_R1, peak)
        if settings.smoothing:
            logits_RV[:, :n_classes] -= settings.smoothing / n_total
        if slope_RV is not None:
            logits_RV.mul_(slope_RV)


def _over_parts_(
    probabilities_RV: Tensor, normalizer_R1: Tensor, target_R1: Tensor, part: ClassPart
) -> tuple[Tensor, Tensor]:
    """Return the log-normalizer over all classes and the target's logit; scale probabilities among the part's classes."""
    each_PR2 = torch.stack(part.gather(torch.cat((normalizer_R1, target_R1), 1)))
    total_R1, target_R1 = each_PR2[..., :1].logsumexp(0), each_PR2[..., 1:].sum(0)
    probabilities_RV.mul_((normalizer_R1 - total_R1).exp_())
    return total_R1, target_R1


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def rows_per_part(n_rows: int, row_bytes: int, limit: int) -> int:
    """Return the number of rows per part: parts of equal size, none far above the limit."""
    parts = math.ceil(n_rows * row_bytes / limit)
    return max(1, math.ceil(n_rows / max(1, parts)))
