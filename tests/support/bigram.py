"""A small model and its batches, for tests of the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.training.evaluation import Batch
from gptkit.training.loop import Trainer

VOCABULARY, WIDTH, LENGTH = 13, 8, 6


class Bigram(nn.Module):
    """Bigram model with dropout, a tied table and a buffer."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.out.weight = self.table.weight
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.calls: Tensor

    def forward(self, ids_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None) -> Any:
        self.calls += self.training
        logits = self.out(self.dropout(self.mix(self.table(ids_BT)).tanh()))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=-100)
        return SimpleNamespace(loss=loss)


def make_model(dropout: float = 0.2) -> Bigram:
    torch.manual_seed(7)
    return Bigram(dropout)


def batch(step: int, batch_size: int, seed: int, *, first: int = 0) -> Batch:
    """Return a batch in which the next token is mostly the previous one plus one."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    ids = torch.randint(VOCABULARY, (batch_size, 1), generator=generator) + torch.arange(LENGTH + 1)
    ids = ids % VOCABULARY
    return ids[:, :-1], ids[:, 1:], None


def validation(batch_size: int, max_batches: int) -> Iterator[Batch]:
    return (batch(10_000 + index, batch_size, 0) for index in range(max_batches))


MakeTrainer = Callable[..., Trainer]
