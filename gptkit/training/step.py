"""Optimizer step: forward and backward over the parts of a batch, clipping, and the update.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.nn.after_step import after_step
from gptkit.nn.head import IGNORED
from gptkit.training.evaluation import Batch, documents, to_device
from gptkit.training.groups import GroupRates
from gptkit.training.parallel.processes import Processes
from gptkit.training.parallel.tensor import clip_divided
from gptkit.training.precision import autocast

__all__ = ["TrainingStep", "split"]


class TrainingStep:
    """Optimizer step: compute the gradient of a batch and apply it.

    Args:
        forward: the callable model, possibly compiled or wrapped for data parallelism.
        optimizer: its optimizer.
        device: the device.
        precision: dtype of the matrix products.
        accumulation: number of parts that each process computes one after the other.
        clip: maximum norm of the gradient, or None.
        processes: the processes that share the batch.
        divided: parameters of which each process of a tensor group holds a part.

    Attributes:
        rates: the learning rates of the optimizer's parameter groups.
    """

    def __init__(
        self,
        forward: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        precision: torch.dtype,
        accumulation: int = 1,
        clip: float | None = None,
        processes: Processes | None = None,
        divided: Collection[Tensor] = (),
    ) -> None:
        self.forward = forward
        self.optimizer = optimizer
        self.device = device
        self.precision = precision
        self.accumulation = accumulation
        self.clip = clip
        self.processes = processes or Processes()
        self.divided = divided
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.rates = GroupRates(optimizer)

    @property
    def parts(self) -> int:
        """Number of equal parts of a batch."""
        return self.accumulation * self.processes.parts

    def __call__(
        self,
        batch: Batch,
        before_update: Callable[[], None],
        accepts: Callable[[float, float], bool] | None = None,
    ) -> Tensor | None:
        """Take one step.

        Args:
            batch: the whole batch, equal in every process.
            before_update: called when the gradients are complete.
            accepts: returns whether to update the weights, given the loss and the gradient's norm; None to always update.

        Returns:
            (2,): the batch's loss and the gradient's norm before clipping, still on the device. None if the weights were not
            updated.
        """
        total = torch.zeros((), device=self.device)
        parts = list(split(batch, self.accumulation, self.processes))
        for index, (inputs_BT, targets_BT, documents_BT, share) in enumerate(parts):
            with self._synchronized(index == len(parts) - 1):
                with autocast(self.device, self.precision):
                    inputs_BT, targets_BT = to_device(inputs_BT, targets_BT, device=self.device)
                    loss = self.forward(inputs_BT, targets_BT, **documents(documents_BT, self.device)).loss
                loss = loss * share
                # Gradients are averaged over the processes, and the shares of all of them add up to one.
                (loss * self.processes.parts if self.processes.parts > 1 else loss).backward()
            total += loss.detach()
        self.processes.sum(total)
        before_update()
        norm = self._clip()
        result = torch.stack((total, norm.to(total)))
        accepted = accepts is None or accepts(*result.tolist())
        if accepted:
            self.optimizer.step()
        after_step(self.forward)  # in any case, since it also clears what the modules collected
        self.optimizer.zero_grad(set_to_none=True)
        return result if accepted else None

    def _clip(self) -> Tensor:
        """Clip the gradients; return their norm before."""
        limit = self.clip or math.inf
        if self.processes.tensor > 1:
            return clip_divided(self._parameters, self.divided, limit, self.processes)
        norm = nn.utils.get_total_norm([each.grad for each in self._parameters if each.grad is not None])
        # The norm of sharded gradients is a `DTensor`.
        whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        # torch multiplies even by 1, since a comparison would synchronize a GPU. On a CPU, this is a pass over the memory.
        within = self.clip is None or (self.device.type == "cpu" and float(whole) + 1e-6 <= limit)
        if not within:
            nn.utils.clip_grads_with_norm_(self._parameters, limit, norm)
        return whole

    def _synchronized(self, last: bool) -> AbstractContextManager[Any]:
        """Exchange gradients after the last part only."""
        if self.processes.parts == 1 and self.processes.shard == 1:
            return contextlib.nullcontext()
        no_sync = getattr(self.forward, "no_sync", None)
        if no_sync is not None:
            return contextlib.nullcontext() if last else no_sync()
        self.forward.set_requires_gradient_sync(last)  # type: ignore[operator]
        return contextlib.nullcontext()


def split(batch: Batch, accumulation: int, processes: Processes) -> Iterator[tuple[Tensor, Tensor, Tensor | None, float]]:
    """Yield the parts of a batch for one process, each with its share of the batch's targets."""
    count = accumulation * processes.parts
    inputs_BT, targets_BT, documents_BT = batch
    if count == 1 and bool((targets_BT != IGNORED).any()):
        yield *batch, 1.0
        return
    n_targets = max(1, int((targets_BT != IGNORED).sum()))
    parts = zip(
        inputs_BT.chunk(count),
        targets_BT.chunk(count),
        documents_BT.chunk(count) if documents_BT is not None else [None] * count,
        strict=True,
    )
    for index, (inputs, targets, document) in enumerate(parts):
        if index % processes.parts != processes.part:
            continue
        n_here = int((targets != IGNORED).sum())
        if n_here:
            yield inputs, targets, document, n_here / n_targets
        elif count == 1 or processes.parts > 1:
            # A step has a backward pass, and the same number of parts in every process: this one counts for nothing.
            yield inputs, inputs, document, 0.0
