"""Short trainings that show whether a component learns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gptkit.model.gpt import GPT

__all__ = ["N_TOKENS", "alternating", "assert_learns", "repeated"]

N_TOKENS = 9
"""Token ids of the tasks."""

Draw = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def repeated(distance: int) -> Draw:
    """A token between fillers is repeated at a fixed distance; only its earlier occurrences determine the target."""
    return partial(_repeated, distance)


def _repeated(distance: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    length = 2 * distance
    tokens = torch.zeros(16, length + 1, dtype=torch.long)
    tokens[:, ::distance] = torch.randint(1, N_TOKENS, (16, 1), generator=generator)
    targets = torch.full((16, length), -100)
    targets[:, -1] = tokens[:, length]
    return tokens[:, :-1], targets


def alternating(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two tokens in turn: each is the one before the last; the second is a guess, and no target."""
    tokens = torch.randint(N_TOKENS, (32, 2), generator=generator).repeat(1, 5)[:, :9]
    targets = tokens[:, 1:].clone()
    targets[:, 0] = -100
    return tokens[:, :-1], targets


def assert_learns(model: GPT, draw: Draw, *, steps: int) -> None:
    """Train a model with `N_TOKENS` token ids on drawn inputs and targets; its loss falls from above 2 to below 0.5."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        loss = model(*draw(generator)).loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2
    assert sum(losses[-5:]) / 5 < 0.5
