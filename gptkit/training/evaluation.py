"""The loss on text that was not trained on.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptkit.nn.head import IGNORED
from gptkit.training.precision import autocast

__all__ = ["Batch", "Evaluation", "evaluate"]

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs (B, T), targets (B, T) and document numbers (B, T), the last for packed documents only."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        loss: mean cross-entropy in nats a token.
        tokens: how many tokens that is the mean of.
        bytes: how many bytes of text those tokens stand for; 0 where nobody asked.
    """

    loss: float
    tokens: int
    bytes: int = 0

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that is more than a float can be."""
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
) -> Evaluation | None:
    """The model's mean loss over batches, each token counting the same; None where there are no tokens.

    The model is in evaluation mode meanwhile, and back in the mode it was in afterwards.
    """
    was_training = model.training
    model.eval()
    # Summed in fp64 on the device: one wait at the end, not one a batch.
    total = torch.zeros((), dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    n_tokens = n_bytes = 0
    try:
        for inputs_BT, targets_BT, documents_BT in batches:
            counted = targets_BT != IGNORED
            n_here = int(counted.sum())
            if not n_here:
                continue
            if bytes_per_token_V is not None:
                n_bytes += int(bytes_per_token_V[targets_BT[counted].cpu()].sum())
            with autocast(device, precision):
                loss = model(*to_device(inputs_BT, targets_BT, device=device), **documents(documents_BT, device)).loss
            total += loss.to(total.dtype) * n_here
            n_tokens += n_here
    finally:
        model.train(was_training)
    return Evaluation(float(total) / n_tokens, n_tokens, n_bytes) if n_tokens else None


def to_device(*tensors: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """The tensors on the device, on their way there while the processor goes on."""
    if device.type == "cuda":
        return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)
    return tuple(tensor.to(device) for tensor in tensors)


def documents(documents_BT: Tensor | None, device: torch.device) -> dict[str, Tensor]:
    """The keyword argument that tells a model about documents, where there are several a row."""
    return {} if documents_BT is None else {"documents_BT": documents_BT.to(device)}
