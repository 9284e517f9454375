"""What the tests of attentions with an indexer have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from gptkit.model.gpt import GPT

__all__ = ["assert_only_the_indexer_learns", "learned_share"]


def assert_only_the_indexer_learns(model: GPT, without: GPT, ids_BT: Tensor) -> None:
    """Require gradients of the indexer's loss in the indexer alone, comparing with a model without that loss."""
    without.load_state_dict(model.state_dict())
    for each in (model.train(), without.train()):
        loss = each(ids_BT, ids_BT.roll(1, 1)).loss
        assert loss is not None
        loss.backward()
    for (name, parameter), other in zip(model.named_parameters(), without.parameters(), strict=True):
        if ".indexer." in name:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
            assert other.grad is None or not other.grad.any(), name
        else:
            torch.testing.assert_close(parameter.grad, other.grad)


def learned_share(model: GPT, ids_BT: Tensor) -> float:
    """Train the indexer alone for 60 steps, and return its last loss divided by the first.

    With frozen attention, the divergence between its weights and the indexer's distribution falls.
    """
    model.train()
    indexers = [parameter for name, parameter in model.named_parameters() if ".indexer." in name]
    optimizer = torch.optim.AdamW(indexers, lr=1e-2)
    losses: list[float] = []
    for _ in range(60):
        loss = model(ids_BT, ids_BT.roll(1, 1)).losses["indexer"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[-1] / losses[0]
