"""Shared code of samplers that depend on the history: the distinct tokens of each row, as indices into the logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["occurrences"]


def occurrences(
    history: Sequence[Sequence[int]], like_BV: Tensor, window: int | None = None, starts: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Count the tokens of each row.

    Args:
        history: token ids of each row; ids outside the vocabulary are ignored.
        like_BV: the logits, for their size and device.
        window: number of last tokens of each row that are counted; None for all.
        starts: position from which the tokens of each row are counted; None for all.

    Returns:
        Indices into the flattened logits (N,), and the counts (N,) in the logits' dtype.
    """
    import torch

    vocab_size = like_BV.shape[-1]
    places: list[int] = []
    counts: list[int] = []
    for row, tokens in enumerate(history):
        start = 0 if starts is None else starts[row]
        start = start if window is None else max(start, len(tokens) - window)
        counted = Counter(tokens[start:] if start else tokens)
        for token, count in counted.items():
            if 0 <= token < vocab_size:
                places.append(row * vocab_size + token)
                counts.append(count)
    device = like_BV.device
    return torch.tensor(places, dtype=torch.long, device=device), torch.tensor(counts, dtype=like_BV.dtype, device=device)
