"""One forward pass: token ids, positions, masks, caches, and what layers tell each other.

The host makes one `Forward` a call and hands it to every layer. Masks are computed here and only here, so no component
can forget causality, padding, a window or a document's border.

Shapes: B batch, T tokens of this call (queries), S tokens in view (keys, cached ones first).

A token's *slot* counts from the first token of its row, padding included, over all calls on one cache. Its *position*
counts from the first real token of its row or document. Windows count tokens, the current one included.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gptkit.nn.cache.state import LayerState, Stateful

__all__ = ["Forward", "Mask"]

R = TypeVar("R")


@dataclass(frozen=True)
class Mask:
    """Which keys a query may attend, in the form that fused attention takes.

    Attributes:
        causal: the plain lower triangle over T = S tokens; `allowed` is None then.
        allowed: (1 or B, 1, T, S) truth values, or None where nothing needs masking.
    """

    causal: bool
    allowed: Tensor | None

    def dense(self, n_queries: int, n_keys: int, device: torch.device) -> Tensor:
        """The mask as truth values (1 or B, 1, T, S), whatever its form."""
        if self.allowed is not None:
            return self.allowed
        full = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
        return (full.tril() if self.causal else full)[None, None]


class Forward:
    """One call of the model.

    Attributes:
        ids_BT: the token ids.
        first: slot of the first token of this call; the number of tokens already cached.
        starts_B: how many slots of each row are padding, at its start; None where no row is padded.
        documents_BT: the number of the document that each token belongs to, for packed rows; None for one a row.
        states: the layers' states when decoding with a cache, else None.
        losses: auxiliary losses (a router's, say), by name; the model adds them to its own loss.
        shared: what layers tell later layers, by a documented key (``"values"`` for value residuals, say).
        weights: attention weights (B, H, T, S) by layer, filled only when it was asked for; else None.
    """

    def __init__(
        self,
        ids_BT: Tensor,
        *,
        first: int = 0,
        starts_B: Tensor | None = None,
        documents_BT: Tensor | None = None,
        states: list[LayerState] | None = None,
        keep_weights: bool = False,
    ) -> None:
        if documents_BT is not None and (states is not None or starts_B is not None):
            raise ValueError("packed documents cannot be combined with a cache or with padding")
        self.ids_BT = ids_BT
        self.n_tokens = ids_BT.shape[1]
        self.device = ids_BT.device
        self.first = first
        self.starts_B = starts_B
        self.documents_BT = documents_BT
        self.states = states
        self.losses: dict[str, Tensor] = {}
        self.shared: dict[Hashable, Any] = {}
        self.weights: dict[int, Tensor] | None = {} if keep_weights else None
        self._memo: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], R]) -> R:
        """`make()`, computed on first request and kept for this call: tables and masks that layers have in common."""
        if key not in self._memo:
            self._memo[key] = make()
        found: R = self._memo[key]
        return found

    def state(self, module: Stateful) -> LayerState | None:
        """The state of a layer, or None when there is no cache."""
        return None if self.states is None else self.states[module.state_index]

    @property
    def valid_BT(self) -> Tensor | None:
        """True for real tokens, False for padding; None where no row is padded."""
        if self.starts_B is None:
            return None
        return self.once("valid", lambda: self._slots(self.first, self.n_tokens) >= self.starts_B[:, None])  # type: ignore[index]

    @property
    def positions(self) -> Tensor:
        """Positions of this call's tokens: (T,) where all rows agree, else (B, T). Padding has position 0."""
        return self.once("positions", lambda: self.key_positions(self.first, self.n_tokens).clamp_min(0))

    def key_positions(self, first: int, n_keys: int) -> Tensor:
        """Positions of the keys in view, (S,) or (B, S); negative for padding.

        Args:
            first: slot of the first key, as a state's `append` returned it (0 without a cache).
            n_keys: S.
        """
        return self.once(("key positions", first, n_keys), lambda: self._key_positions(first, n_keys))

    def _key_positions(self, first: int, n_keys: int) -> Tensor:
        slots_S = self._slots(first, n_keys)
        if self.documents_BT is not None:
            documents = self.documents_BT
            starts_here = torch.ones_like(documents, dtype=torch.bool)
            starts_here[:, 1:] = documents[:, 1:] != documents[:, :-1]
            begin_BT = torch.where(starts_here, slots_S.expand_as(documents), 0).cummax(dim=1).values
            return slots_S - begin_BT
        if self.starts_B is None:
            return slots_S
        return slots_S - self.starts_B[:, None]

    def _slots(self, first: int, count: int) -> Tensor:
        return torch.arange(first, first + count, device=self.device)

    def mask(self, first: int, n_keys: int, *, window: int | None = None, chunk: int | None = None) -> Mask:
        """Which of the keys in view each query may attend: itself and earlier tokens of its row and document.

        Args:
            first: slot of the first key in view.
            n_keys: S.
            window: no further back than this many tokens, the current one included.
            chunk: only tokens of the query's own chunk of this many positions.
        """
        return self.once(("mask", first, n_keys, window, chunk), lambda: self._mask(first, n_keys, window, chunk))

    def _mask(self, first: int, n_keys: int, window: int | None, chunk: int | None) -> Mask:
        n_queries = self.n_tokens
        whole = self.starts_B is None and self.documents_BT is None and (chunk is None or first + n_keys <= chunk)
        if window is not None and window >= n_keys:
            window = None
        if whole and window is None:
            if n_queries == 1:
                return Mask(causal=False, allowed=None)
            if n_queries == n_keys:
                return Mask(causal=True, allowed=None)
        queries_T1 = self._slots(self.first, n_queries)[:, None]
        keys_1S = self._slots(first, n_keys)[None, :]
        allowed = (keys_1S <= queries_T1)[None]
        if window is not None:
            allowed = allowed & (queries_T1 - keys_1S < window)
        if chunk is not None:
            key_positions = self.key_positions(first, n_keys)
            query_chunk = torch.div(self.key_positions(self.first, n_queries), chunk, rounding_mode="floor")
            key_chunk = torch.div(key_positions, chunk, rounding_mode="floor")
            same = query_chunk[..., :, None] == key_chunk[..., None, :]
            allowed = allowed & (same if same.dim() == 3 else same[None])
        if self.documents_BT is not None:
            allowed = allowed & (self.documents_BT[:, :, None] == self.documents_BT[:, None, :])
        if self.starts_B is not None:
            real_B1S = keys_1S[None] >= self.starts_B[:, None, None]
            # Padding attends itself: a row of the softmax with nothing to attend would be NaN.
            itself = (keys_1S == queries_T1)[None]
            allowed = (allowed & real_B1S) | itself
        return Mask(causal=False, allowed=allowed[:, None])
