"""Greedy generation without a cache: the reference implementation in tests of `generate`.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptkit.inference.protocol import LanguageModel

__all__ = ["generate_simple"]


@torch.no_grad()
def generate_simple(model: LanguageModel, ids_BT: Tensor, max_new_tokens: int, context_size: int | None = None) -> Tensor:
    """Append the most likely token repeatedly.

    Args:
        model: a model in evaluation mode.
        ids_BT: the prompts, (B, T).
        max_new_tokens: number of tokens to append.
        context_size: number of last tokens that the model receives; its context length by default.

    Returns:
        Prompts and new tokens, (B, T + max_new_tokens).
    """
    size = model.context_length if context_size is None else context_size
    for _ in range(max_new_tokens):
        logits_BTV: Tensor = model(ids_BT[:, -size:]).logits
        next_B1 = logits_BTV[:, -1].argmax(dim=-1, keepdim=True)
        ids_BT = torch.cat((ids_BT, next_B1), dim=1)
    return ids_BT
