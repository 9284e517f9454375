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

from gptkit.nn.head import IGNORED
from gptkit.training.parallel.processes import Processes
from gptkit.training.precision import autocast

__all__ = ["NO_TEXT", "Batch", "Evaluation", "combined", "evaluate", "with_weights"]

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs (B, T), targets (B, T) and document ids (B, T), the last for packed documents only."""

_Measured = tuple[Batch, Tensor | None]
"""A batch, and the bytes of text of its targets."""

NO_TEXT = -1
"""Number of bytes of a token that is not text: one between documents, or another special token."""


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
            that stands for none, whose loss is not counted in `Evaluation.text_nats`. In one process only.
        processes: the processes that share the batches.

    Returns:
        The evaluation; None if the batches have no targets.
    """
    processes = processes or Processes()
    was_training = model.training
    model.eval()

    def nats(batch: Batch, n_targets: int) -> Tensor:
        inputs_BT, targets_BT, documents_BT = batch
        with autocast(device, precision):
            loss = model(*to_device(inputs_BT, targets_BT, device=device), **documents(documents_BT, device)).loss
        summed: Tensor = loss.to(totals.dtype) * n_targets
        return summed

    # Nats of all tokens, nats of text, tokens. Summed in fp64 on the device: one wait at the end, not one per batch.
    totals = torch.zeros(3, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    n_tokens = n_bytes = 0
    try:
        measured = zip(batches, repeat(None) if text_bytes is None else text_bytes, strict=False)
        for (batch, bytes_BT), counts in _shared(measured, processes):
            counted_BT = batch[1] != IGNORED
            n_here = int(counted_BT.sum())
            loss = nats(batch, n_here)
            if not counts:
                continue
            n_tokens += n_here
            totals[0] += loss
            if bytes_BT is not None:
                other_BT = counted_BT & (bytes_BT == NO_TEXT)
                n_bytes += int(bytes_BT[counted_BT & ~other_BT].sum())
                totals[1] += loss
                rows_B = other_BT.any(dim=1)
                if rows_B.any():
                    # The head returns a mean only, so the targets to exclude are computed once more and subtracted.
                    totals[1] -= nats(_only(batch, rows_B, other_BT), int(other_BT.sum()))
    finally:
        model.train(was_training)
    totals[2] = n_tokens
    loss_sum, text_nats, tokens = processes.sum(totals).tolist()
    return Evaluation(loss_sum / tokens, int(tokens), text_nats, n_bytes) if tokens else None


def _only(batch: Batch, rows_B: Tensor, counted_BT: Tensor) -> Batch:
    """Return some rows of a batch, with only some targets."""
    inputs_BT, targets_BT, documents_BT = batch
    targets_BT = targets_BT.masked_fill(~counted_BT, IGNORED)
    return inputs_BT[rows_B], targets_BT[rows_B], None if documents_BT is None else documents_BT[rows_B]


def _shared(measured: Iterable[_Measured], processes: Processes) -> Iterator[tuple[_Measured, bool]]:
    """Yield the batches of one process, and whether each is counted: all processes compute the same number."""
    group: list[_Measured] = []
    for batch in measured:
        if not bool((batch[0][1] != IGNORED).any()):
            continue
        group.append(batch)
        if len(group) == processes.count:
            yield group[processes.rank], True
            group = []
    if group:
        own = processes.rank < len(group)
        yield group[processes.rank if own else 0], own


@contextlib.contextmanager
def with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Temporarily replace the values of some of a model's parameters."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        own = {name: parameters[name].detach().clone() for name in weights}
        try:
            for name, tensor in weights.items():
                parameters[name].copy_(tensor)
            yield
        finally:
            for name, tensor in own.items():
                parameters[name].copy_(tensor)


def to_device(*tensors: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """Return the tensors on the device, copied asynchronously."""
    if device.type == "cuda":
        return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)
    return tuple(tensor.to(device) for tensor in tensors)


def documents(documents_BT: Tensor | None, device: torch.device) -> dict[str, Tensor]:
    """Return the keyword argument with the document ids, if rows hold several documents."""
    return {} if documents_BT is None else {"documents_BT": documents_BT.to(device)}
