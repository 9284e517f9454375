"""Arrays stored in several shards, read as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "ShardedArray", "joined", "rows", "view"]


class ShardedArray:
    """One-dimensional array in several parts, such as memory-mapped files. What is read is copied.

    Args:
        parts: the parts in their order, of one type.
    """

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self.parts = tuple(part for part in parts if len(part))
        self.dtype = parts[0].dtype
        self._ends = np.cumsum([len(part) for part in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> NDArray[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            if step != 1:
                raise IndexError("a sharded array is read in consecutive items")
            pieces = []
            for part, end in zip(self.parts, self._ends.tolist(), strict=True):
                begin = end - len(part)
                if first < end and last > begin:
                    pieces.append(part[max(first - begin, 0) : last - begin])
            return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, at, side="right"))
        return self.parts[number][at - int(self._ends[number])]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def tolist(self) -> list[Any]:
        """Return all items."""
        items: list[Any] = self[:].tolist()
        return items

    def rows(self, starts_B: NDArray[np.int64], length: int) -> NDArray[Any]:
        """Return the items from each start on, (B, length)."""
        result = np.empty((len(starts_B), length), self.dtype)
        part_B = np.searchsorted(self._ends, starts_B, side="right")
        for number in np.unique(part_B).tolist():
            part = self.parts[number]
            rows_R = np.flatnonzero(part_B == number)
            local_R = starts_B[rows_R] - (int(self._ends[number]) - len(part))
            inside_R = local_R + length <= len(part)
            if inside_R.any():
                windows = np.lib.stride_tricks.sliding_window_view(part, length)
                result[rows_R[inside_R]] = windows[local_R[inside_R]]
            for row in rows_R[~inside_R].tolist():  # continued in the next part
                result[row] = self[int(starts_B[row]) : int(starts_B[row]) + length]
        return result


Array = NDArray[Any] | ShardedArray
"""An array, in one part or several."""


def joined(parts: Sequence[NDArray[Any]]) -> Array:
    """Return the parts as one array; a single part is returned as it is."""
    return parts[0] if len(parts) == 1 else ShardedArray(parts)


def view(array: Array, first: int, end: int) -> Array:
    """Return a range of an array without a copy."""
    if not isinstance(array, ShardedArray):
        return array[first:end]
    parts, begin = [], 0
    for part in array.parts:
        parts.append(part[max(first - begin, 0) : max(end - begin, 0)])
        begin += len(part)
    return joined([part for part in parts if len(part)] or [np.empty(0, array.dtype)])


def rows(array: Array, starts_B: NDArray[np.int64], length: int) -> NDArray[Any]:
    """Return the items of an array from each start on, (B, length)."""
    if isinstance(array, ShardedArray):
        return array.rows(starts_B, length)
    result: NDArray[Any] = np.lib.stride_tricks.sliding_window_view(array, length)[starts_B]
    return result
