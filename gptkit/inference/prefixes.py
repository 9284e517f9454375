"""`PrefixCache`: the caches of recent prompts, whose beginnings later prompts share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from gptkit.core.errors import StateError
from gptkit.inference.prompts import shared_length
from gptkit.inference.protocol import Cache, ExtractableCache

__all__ = ["PrefixCache"]

_LEAST = 16
"""Shorter prefixes are not reused: a text with a prefix is read alone, without the others that arrive with it."""


class PrefixCache:
    """Collection of the caches of recent prompts, one row each, of which the least recently used are removed.

    Args:
        max_bytes: maximum memory; 0 keeps nothing.
        min_tokens: minimum number of shared tokens to reuse.

    Attributes:
        bytes: memory of the caches.
    """

    def __init__(self, max_bytes: int, min_tokens: int = _LEAST) -> None:
        self._max_bytes = max_bytes
        self._min_tokens = min_tokens
        self._entries: OrderedDict[tuple[int, ...], ExtractableCache] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, ids: Sequence[int], cache: Cache, row: int) -> None:
        """Keep a copy of one row, unless the row is too long or cannot be copied.

        Args:
            ids: the tokens of the row, without padding, all of which `cache` holds.
            cache: a cache.
            row: the row.
        """
        key = tuple(ids)
        if self._max_bytes == 0 or len(key) < self._min_tokens or not hasattr(cache, "extract"):
            return
        for other, kept in self._entries.items():
            if other[: len(key)] == key and kept.can_truncate(len(key)):
                self._entries.move_to_end(other)
                return
        try:
            copy: ExtractableCache = cache.extract(row)
        except StateError:  # this cache cannot be reused, so prompts are computed from their first token
            return
        if copy.bytes > self._max_bytes:
            return
        for other in [other for other in self._entries if key[: len(other)] == other and copy.can_truncate(len(other))]:
            self._remove(other)
        self._entries[key] = copy
        self.bytes += copy.bytes
        while self.bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def take(self, ids: Sequence[int], room: int, limit: int) -> ExtractableCache | None:
        """Return a cache of one row with the longest known prefix of a text, which may be changed; None without one.

        At least the last token of the text is not in the cache, since the logits after it are needed.

        Args:
            ids: the text.
            room: number of tokens that will be added to it.
            limit: maximum capacity of the cache.
        """
        if len(ids) > limit:  # its beginning is discarded
            return None
        best, n_best = None, self._min_tokens - 1
        for key, cache in self._entries.items():
            n_shared = min(shared_length(key, ids), len(ids) - 1)
            if n_shared > n_best and cache.can_truncate(n_shared):
                best, n_best = key, n_shared
        if best is None:
            return None
        self._entries.move_to_end(best)
        copy: ExtractableCache = self._entries[best].extract(0, max(len(best), min(limit, len(ids) + room)))
        copy.truncate(n_best)
        return copy

    def _remove(self, key: tuple[int, ...]) -> None:
        self.bytes -= self._entries.pop(key).bytes
