"""The loss on held-out text.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptkit.nn.head import IGNORED
from gptkit.training.parallel.processes import Processes
from gptkit.training.precision import autocast

__all__ = ["Batch", "Evaluation", "evaluate", "with_weights"]

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs (B, T), targets (B, T) and document numbers (B, T), the last for packed documents only."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        loss: mean cross-entropy in nats per token.
        tokens: the number of tokens that the mean is of.
        bytes: the number of bytes of text that those tokens stand for; 0 where it was not requested.
    """

    loss: float
    tokens: int
    bytes: int = 0

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that exceeds the largest float."""
        return math.exp(self.loss) if self.loss < 709 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """The loss in bits per byte of text, which compares across tokenizers; None without bytes."""
        return self.loss * self.tokens / (math.log(2) * self.bytes) if self.bytes else None


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    precision: torch.dtype,
    bytes_per_token_V: Tensor | None = None,
    processes: Processes | None = None,
) -> Evaluation | None:
    """Compute the model's mean loss over batches, in which each token counts the same.

    The model is in evaluation mode meanwhile, and back in its previous mode afterwards.

    Args:
        model: called as ``model(inputs_BT, targets_BT).loss``.
        batches: the same in every process.
        device: where to compute.
        precision: dtype of the matrix products.
        bytes_per_token_V: bytes of text that each token id stands for.
        processes: those that share the batches.

    Returns:
        The evaluation; None where the batches have no targets.
    """
    processes = processes or Processes()
    was_training = model.training
    model.eval()
    # Summed in fp64 on the device: one wait at the end, not one per batch. Loss, tokens and bytes.
    totals = torch.zeros(3, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    n_tokens = n_bytes = 0
    try:
        for (inputs_BT, targets_BT, documents_BT), counts in _shared(batches, processes):
            counted = targets_BT != IGNORED
            n_here = int(counted.sum())
            if counts and bytes_per_token_V is not None:
                n_bytes += int(bytes_per_token_V[targets_BT[counted].cpu()].sum())
            with autocast(device, precision):
                loss = model(*to_device(inputs_BT, targets_BT, device=device), **documents(documents_BT, device)).loss
            if counts:
                totals[0] += loss.to(totals.dtype) * n_here
                n_tokens += n_here
    finally:
        model.train(was_training)
    totals[1:] = torch.tensor([n_tokens, n_bytes], dtype=totals.dtype)
    loss, tokens, n_bytes = processes.sum(totals).tolist()
    return Evaluation(loss / tokens, int(tokens), int(n_bytes)) if tokens else None


def _shared(batches: Iterable[Batch], processes: Processes) -> Iterator[tuple[Batch, bool]]:
    """The batches that one process computes, and whether each counts: all processes compute the same number."""
    group: list[Batch] = []
    for batch in batches:
        if not bool((batch[1] != IGNORED).any()):
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
    """Give a model other values for some of its parameters, and restore its own afterwards."""
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
    """The tensors on the device, copied while the host continues."""
    if device.type == "cuda":
        return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)
    return tuple(tensor.to(device) for tensor in tensors)


def documents(documents_BT: Tensor | None, device: torch.device) -> dict[str, Tensor]:
    """The keyword argument with the document numbers, where rows hold several documents."""
    return {} if documents_BT is None else {"documents_BT": documents_BT.to(device)}
