"""`RingState`: the tokens of an attention window in a ring buffer of fixed shape, for compiled decoding.

Shapes: B batch, H heads, T new tokens, S keys in view, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.nn.cache.static import StaticState
from gptkit.nn.cache.view import Ring

__all__ = ["RingState"]

SPARE = 16
"""Slots beyond the window: how many tokens, and one more, can be discarded after the oldest have been overwritten."""


class RingState(StaticState):
    """Tensors with a slot for each token that a query can see, and a few more, written in place at the index modulo slots.

    Neither memory nor the cost of a step grows with the capacity. The keys in view are not in the order of the text, so that
    masks and positions are computed from the index of the token in each slot (`Ring.indices`).

    Args:
        shapes: for each tensor its (H, D).
        offset: 0-d tensor with the number of tokens held; the cache advances it after each call of the model.
        window: how many tokens back a query sees, the current one included.
    """

    def __init__(
        self,
        batch: int,
        shapes: Sequence[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
        offset: Tensor,
        window: int,
    ) -> None:
        self.window = window
        self.size = self.slots(window)
        self._overwritten = 0
        super().__init__(batch, self.size, shapes, dtype, device, offset)

    @staticmethod
    def slots(window: int) -> int:
        """The number of slots for a window."""
        return window + SPARE

    def append(self, *new_BHTD: Tensor) -> tuple[Ring, tuple[Tensor, ...]]:
        n_new = new_BHTD[0].shape[-2]
        ring = Ring(self.offset, self.size, n_new)
        # Of several new tokens the last ones stay, and earlier queries see those that they overwrite.
        n_stored = min(n_new, self.size)
        slots = (torch.arange(n_new - n_stored, n_new, device=self.offset.device) + self.offset) % self.size
        views = []
        for buffer, new in zip(self.buffers, new_BHTD, strict=True):
            added = new.to(buffer.dtype)
            if n_new > 1:
                views.append(torch.cat((buffer, added), dim=2))
            buffer.index_copy_(2, slots, added[:, :, n_new - n_stored :])
        return ring, tuple(views or self.buffers)

    def can_truncate(self, length: int) -> bool:
        overwritten = max(self._overwritten, int(self.offset) - self.size)
        return length == 0 or overwritten <= max(0, length - self.window + 1)

    def truncate(self, length: int) -> None:
        """Keep the slots as they are: the cache sets the offset back, and what follows it is masked and overwritten."""
        held = int(self.offset)
        if not self.can_truncate(length):
            raise StateError(
                f"the oldest tokens of a window of {self.window} are overwritten: of {held} tokens the last "
                f"{held - length} cannot be discarded, {SPARE + 1} at most",
                hint="Truncate by fewer tokens at a time, or start again from the prompt.",
            )
        self._overwritten = 0 if length == 0 else max(self._overwritten, held - self.size)
