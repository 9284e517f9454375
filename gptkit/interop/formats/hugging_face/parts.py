"""Tensors that files hold in parts, which are cut by rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gptkit.kinds.format import TensorEntry, Tensors

__all__ = ["JoinedParts"]

_PART = re.compile(r"(?P<tensor>.+)\.shard_(?P<index>\d+)(?P<leaf>\.weight)")


class JoinedParts:
    """The tensors of files, with those that are stored as ``NAME.shard_0.weight``, ``NAME.shard_1.weight``, … joined.

    transformers stores embeddings of n-grams so (Qwen 4 Exp, `split_ngram_parts`). Parts that do not belong together, since
    one is missing or their widths or types differ, keep their names.

    Args:
        stored: the tensors as the files have them.
    """

    def __init__(self, stored: Tensors) -> None:
        self._stored = stored
        names: dict[str, dict[int, str]] = {}
        for name in stored.entries:
            match = _PART.fullmatch(name)
            if match is not None:
                names.setdefault(match["tensor"] + match["leaf"], {})[int(match["index"])] = name
        self._parts = {
            name: [parts[index] for index in range(len(parts))]
            for name, parts in names.items()
            if name not in stored.entries and sorted(parts) == list(range(len(parts))) and self._fit(parts.values())
        }
        joined = {part for parts in self._parts.values() for part in parts}
        whole = {name: self._entry(parts) for name, parts in self._parts.items()}
        self.entries: Mapping[str, TensorEntry] = {
            **{name: entry for name, entry in stored.entries.items() if name not in joined},
            **whole,
        }

    def get(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            ExternalModelError: a file was changed or cannot be read.
        """
        if name not in self._parts:
            return self._stored.get(name)
        return torch.cat([self._stored.get(part) for part in self._parts[name]])

    def _fit(self, names: Iterable[str]) -> bool:
        entries = [self._stored.entries[name] for name in names]
        return len({(entry.shape[1:], entry.dtype) for entry in entries}) == 1 and all(entry.shape for entry in entries)

    def _entry(self, names: list[str]) -> TensorEntry:
        entries = [self._stored.entries[name] for name in names]
        return TensorEntry((sum(entry.shape[0] for entry in entries), *entries[0].shape[1:]), entries[0].dtype)
