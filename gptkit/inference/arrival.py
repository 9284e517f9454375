"""Requests whose prompts are being processed, part by part (prefill).

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gptkit.inference.batch import Batch
from gptkit.inference.request import RequestState

__all__ = ["Arrival"]


class Arrival:
    """Requests that were admitted together, and their cache, which joins that of the running ones in the end.

    Args:
        groups: the requests, in groups that share a sampler chain.
        batch: the batch of their texts, in the order of the groups; its reading has begun.
    """

    def __init__(self, groups: Sequence[Sequence[RequestState]], batch: Batch) -> None:
        self.groups = [list(group) for group in groups]
        self.batch = batch

    @property
    def states(self) -> list[RequestState]:
        """The requests, in the order of the batch's rows."""
        return [state for group in self.groups for state in group]

    def advance(self, n_tokens: int | None) -> tuple[int, Tensor | None]:
        """Process the next part of the texts.

        Args:
            n_tokens: maximum number of tokens of each text; None for all.

        Returns:
            The number of tokens that were processed, padding included, and after the last part the logits, (B, V) fp32.
        """
        n_before = self.batch.n_unread
        logits_BV = self.batch.read_part(n_tokens)
        return (n_before - self.batch.n_unread) * len(self.batch.histories), logits_BV

    def evict(self) -> bool:
        """Remove the requests that were cancelled; return whether any are left."""
        states = self.states
        live = [row for row, state in enumerate(states) if state.finish is None]
        if live and len(live) < len(states):
            self.batch.reorder(live)
            kept = [[state for state in group if state.finish is None] for group in self.groups]
            self.groups = [group for group in kept if group]
        return bool(live)
