"""Attention masks: a declaration of the keys that each query may attend, and the forms that backends require.

Shapes: B batch, T queries, S keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from gptkit.nn.attention.pattern import MaskPattern
from gptkit.nn.cache.view import KeyOffset, Ring

__all__ = ["AttentionMask"]


@dataclass(frozen=True, eq=False)
class AttentionMask:
    """Declarative attention mask, lowered to the form that a backend requires.

    A query may attend a key that is not later (or is in the bidirectional prefix of its row), is within the attention
    window, the pattern and the document, and is not padding. Immutable; lowered forms are computed once.

    Attributes:
        form: the simplest form that expresses the mask: ``"none"`` (each query may attend each key), ``"causal"`` (the lower
            triangle, T = S), or ``"dense"``.
        n_queries: T.
        n_keys: S.
        query_offset: index of the first query in its row; an int, or a 0-d tensor if shapes are static.
        key_offset: location of the keys in view: the index of the first one, in the same form, or a `Ring`.
        key_indices_S: the index of each key in view, negative for an empty slot; only with a `Ring` (unordered).
        window: attention window in tokens, the query included; keys further away are excluded.
        pattern: a further restriction by the positions of query and key.
        documents_BT: the document id of each token in packed rows.
        document_offset_BT: index of the first token of each token's document; given with `documents_BT`.
        left_padding_B: number of padding tokens at the start of each row.
        prefix_B: number of tokens, padding not counted, at the start of each row that attend one another in both directions.
    """

    form: Literal["none", "causal", "dense"]
    n_queries: int
    n_keys: int
    device: torch.device
    query_offset: int | Tensor = 0
    key_offset: KeyOffset = 0
    key_indices_S: Tensor | None = None
    window: int | None = None
    pattern: MaskPattern | None = None
    documents_BT: Tensor | None = None
    document_offset_BT: Tensor | None = None
    left_padding_B: Tensor | None = None
    prefix_B: Tensor | None = None
    _lowered: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def is_causal(self) -> bool:
        """Whether the mask is the lower triangle, which backends support by a flag."""
        return self.form == "causal"

    @property
    def rows(self) -> int | None:
        """B if rows have different masks, else None."""
        for tensor in (self.documents_BT, self.left_padding_B, self.prefix_B):
            if tensor is not None:
                return tensor.shape[0]
        return None

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Return whether a query may attend a key, for broadcastable indices of rows, queries and keys of this call.

        This is the only definition of the mask; the lowered forms evaluate it.
        """
        q, k = query + self.query_offset, self._index(key)
        allowed = k <= q
        start = 0 if self.left_padding_B is None else self.left_padding_B[row]
        if self.prefix_B is not None:
            allowed = allowed | (k < start + self.prefix_B[row])
        if self.window is not None:
            allowed = allowed & (q - k < self.window)
            if self.prefix_B is not None:
                allowed = allowed & (k - q < self.window)
        if self.pattern is not None:
            first_q, first_k = start, start
            if self.document_offset_BT is not None:
                first_q, first_k = self.document_offset_BT[row, query], self.document_offset_BT[row, key]
            # A softmax over no key at all would be NaN.
            allowed = allowed & (self.pattern.allows(q - first_q, k - first_k) | (k == q))
        if self.documents_BT is not None:
            allowed = allowed & (self.documents_BT[row, query] == self.documents_BT[row, key])
        if self.key_indices_S is not None:
            allowed = allowed & (k >= 0)
        if self.left_padding_B is not None:
            # Padding attends itself: a softmax over no key at all would be NaN.
            allowed = (allowed & (k >= start)) | (k == q)
        return allowed

    def _index(self, key: Tensor) -> Tensor:
        """Return the index in its row of a key in view."""
        if self.key_indices_S is not None:
            return self.key_indices_S[key]
        assert not isinstance(self.key_offset, Ring)
        return key + self.key_offset

    def dense(self) -> Tensor:
        """Return the mask as booleans, (1 or B, 1, T, S), for every form."""
        if "dense" not in self._lowered:
            self._lowered["dense"] = self._dense()
        return self._lowered["dense"]  # type: ignore[no-any-return]

    def _dense(self) -> Tensor:
        if self.form == "none":
            return torch.ones(1, 1, self.n_queries, self.n_keys, dtype=torch.bool, device=self.device)
        row_B11 = torch.arange(self.rows or 1, device=self.device)[:, None, None]
        query_T1 = torch.arange(self.n_queries, device=self.device)[:, None]
        key_S = torch.arange(self.n_keys, device=self.device)
        allowed = self.allows(row_B11, query_T1, key_S)
        return allowed[:, None] if allowed.dim() == 3 else allowed[None, None]

    def additive(self, dtype: torch.dtype) -> Tensor:
        """Return the mask as a term of the scores, (1 or B, 1, T, S): 0 for allowed keys, -inf for others."""
        key = ("additive", dtype)
        if key not in self._lowered:
            allowed = self.dense()
            zeros = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
            self._lowered[key] = zeros.masked_fill_(~allowed, float("-inf"))
        return self._lowered[key]  # type: ignore[no-any-return]

    def block_mask(self) -> Any:
        """Return the mask as a `BlockMask` of flex attention, which skips blocks of keys that no query may attend."""
        if "block" not in self._lowered:
            from torch.nn.attention.flex_attention import create_block_mask

            def mask_mod(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                return self.allows(row, query, key)

            self._lowered["block"] = create_block_mask(
                mask_mod, self.rows, None, self.n_queries, self.n_keys, device=self.device
            )
        return self._lowered["block"]

    def cumulative_lengths(self, n_rows: int) -> Tensor:
        """Return the starts of segments in the concatenation of all rows, (N + 1,) int32; the last entry is B · T.

        A segment is a document or a row; padding is a separate segment. Only for whole rows without a cache (T = S).

        Args:
            n_rows: B.
        """
        key = ("cumulative lengths", n_rows)
        if key not in self._lowered:
            begins_BT = torch.zeros(n_rows, self.n_queries, dtype=torch.bool, device=self.device)
            begins_BT[:, 0] = True
            if self.documents_BT is not None:
                begins_BT[:, 1:] |= self.documents_BT[:, 1:] != self.documents_BT[:, :-1]
            if self.left_padding_B is not None:
                begins_BT |= torch.arange(self.n_queries, device=self.device) == self.left_padding_B[:, None]
            begins_N = begins_BT.flatten().nonzero().flatten()
            end_1 = torch.full((1,), begins_BT.numel(), device=self.device)
            self._lowered[key] = torch.cat((begins_N, end_1)).to(torch.int32)
        return self._lowered[key]  # type: ignore[no-any-return]
