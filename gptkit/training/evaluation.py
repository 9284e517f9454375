"""Evaluation of the loss on held-out text.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor, nn

from gptkit.data.text_bytes import NO_TEXT
from gptkit.model.gpt import GPT
from gptkit.nn.head import IGNORED
from gptkit.training.parallel.processes import Processes, discard_gathered
from gptkit.training.precision import autocast

__all__ = ["Batch", "Evaluation", "combined", "evaluate", "with_weights"]

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs (B, T), targets (B, T) and document ids (B, T), the last for packed documents only."""

_Measured = tuple[Batch, Tensor | None]
"""A batch, and the bytes of text of its targets."""


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        loss: mean cross-entropy in nats per token.
        tokens: number of tokens in the mean.
        text_nats: sum of the cross-entropies of text tokens; 0 unless requested.
        bytes: number of bytes of these tokens; 0 unless requested.
    """

    loss: float
    tokens: int
    text_nats: float = 0.0
    bytes: int = 0

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite on overflow."""
        return math.exp(self.loss) if self.loss < 709 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of text, which compares across tokenizers: ``text_nats / (ln(2) * bytes)``; None without bytes."""
        return self.text_nats / (math.log(2) * self.bytes) if self.bytes else None


def combined(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the evaluation of several texts together, in which all tokens have equal weight."""
    tokens = sum(each.tokens for each in evaluations)
    return Evaluation(
        sum(each.loss * each.tokens for each in evaluations) / tokens,
        tokens,
        sum(each.text_nats for each in evaluations),
        sum(each.bytes for each in evaluations),
    )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    precision: torch.dtype,
    text_bytes: Iterable[Tensor] | None = None,
    processes: Processes | None = None,
) -> Evaluation | None:
    """Compute the model's mean loss over batches, in which all tokens have equal weight.

    The model is in evaluation mode during the computation; its previous mode is restored.

    Args:
        model: called as ``model(inputs_BT, targets_BT).loss``.
        batches: the batches, equal in every process.
        device: the device.
        precision: dtype of the matrix products.
        text_bytes: for each batch (B, T), the number of bytes of text that each target stands for; `NO_TEXT` for a target
            that stands for none, whose loss is not counted in `Evaluation.text_nats`.
        processes: the processes that share the batches.

    Returns:
        The evaluation; None if the batches have no targets.
    """
    processes = processes or Processes()
    was_training = model.training
    model.eval()

    def nats(batch: Batch, others_BT: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """Return the summed loss of all targets, and that of some of them (where `others_BT` is set)."""
        inputs_BT, targets_BT, documents_BT = batch
        options = documents(documents_BT, device)
        with autocast(device, precision):
            ids_BT, ids_of_targets_BT = to_device(inputs_BT, targets_BT, device=device)
            if others_BT is None:
                return _summed(model(ids_BT, ids_of_targets_BT, **options).loss, targets_BT, totals), 0.0
            some_BT = targets_BT.masked_fill(~others_BT, IGNORED)
            (some_on_device_BT,) = to_device(some_BT, device=device)
            if isinstance(model, GPT) and processes.count == 1:
                # The head returns a mean only, so it is computed twice, and the blocks are not.
                x_BTE, context = model.hidden(ids_BT, **options)
                both = [model.head.loss(x_BTE, ids, context) for ids in (ids_of_targets_BT, some_on_device_BT)]
            else:
                both = [model(ids_BT, ids, **options).loss for ids in (ids_of_targets_BT, some_on_device_BT)]
        return _summed(both[0], targets_BT, totals), _summed(both[1], some_BT, totals)

    # Nats of all tokens and of text. Summed in fp64 on the device: one wait at the end, not one per batch.
    totals = torch.zeros(2, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    counts = torch.zeros(2, dtype=torch.int64)  # tokens, bytes
    try:
        measured = zip(batches, repeat(None) if text_bytes is None else text_bytes, strict=False)
        for (batch, bytes_BT), counted, has_others in _shared(measured, processes):
            counted_BT = batch[1] != IGNORED
            others_BT = counted_BT & (bytes_BT == NO_TEXT) if bytes_BT is not None and has_others else None
            loss, other_loss = nats(batch, others_BT)
            if not counted:
                continue
            totals[0] += loss
            counts[0] += counted_BT.sum()
            if bytes_BT is not None:
                totals[1] += loss - other_loss
                counts[1] += bytes_BT[counted_BT & (bytes_BT != NO_TEXT)].sum()
    finally:
        model.train(was_training)
    loss_sum, text_nats = processes.sum(totals).tolist()
    tokens, n_bytes = processes.sum(counts.to(device)).tolist()
    return Evaluation(loss_sum / tokens, int(tokens), text_nats, int(n_bytes)) if tokens else None


def _summed(mean: Tensor, targets_BT: Tensor, totals: Tensor) -> Tensor:
    """Return the sum of a mean loss over its targets; 0 without targets, whose mean is NaN."""
    n_targets = int((targets_BT != IGNORED).sum())
    return mean.to(totals.dtype) * n_targets if n_targets else torch.zeros_like(totals[0])


def _shared(measured: Iterable[_Measured], processes: Processes) -> Iterator[tuple[_Measured, bool, bool]]:
    """Yield the batches of one process: all processes compute the same number, in the same way.

    Yields:
        The batch, whether it is counted in this process, and whether a batch of a process has targets that are not text.
    """

    def have_others(group: list[_Measured]) -> bool:
        return any(bool(((targets != IGNORED) & (n == NO_TEXT)).any()) for (_, targets, _), n in group if n is not None)

    group: list[_Measured] = []
    for batch in measured:
        if not bool((batch[0][1] != IGNORED).any()):
            continue
        group.append(batch)
        if len(group) == processes.parts:
            yield group[processes.part], True, have_others(group)
            group = []
    if group:
        own = processes.part < len(group)
        yield group[processes.part if own else 0], own, have_others(group)


@contextlib.contextmanager
def with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Temporarily replace the values of some of a model's parameters."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        own = {name: parameters[name].detach().clone() for name in weights}
        try:
            for name, tensor in weights.items():
                parameters[name].copy_(tensor)
            discard_gathered(model)
            yield
        finally:
            for name, tensor in own.items():
                parameters[name].copy_(tensor)
            discard_gathered(model)


def to_device(*tensors: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """Return the tensors on the device, copied asynchronously."""
    if device.type == "cuda":
        pinned = (tensor if tensor.is_pinned() else tensor.pin_memory() for tensor in tensors)
        return tuple(tensor.to(device, non_blocking=True) for tensor in pinned)
    return tuple(tensor.to(device) for tensor in tensors)


def documents(documents_BT: Tensor | None, device: torch.device) -> dict[str, Tensor]:
    """Return the keyword argument with the document ids, if rows hold several documents."""
    return {} if documents_BT is None else {"documents_BT": documents_BT.to(device)}
