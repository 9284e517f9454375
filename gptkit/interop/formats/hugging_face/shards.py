"""Weights in several files with an index, as transformers saves large models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from torch import Tensor

from gptkit.core.atomic import write_text
from gptkit.interop.tensor_files import INDEX, SINGLE, write_tensors
from gptkit.kinds.format import TensorEntry

__all__ = ["SHARD_BYTES", "write_shards"]

SHARD_BYTES = 5 * 10**9
"""Largest size of a file with several tensors."""


def write_shards(
    directory: Path,
    entries: Mapping[str, TensorEntry],
    tensors: Iterator[tuple[str, Tensor]],
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write weights, holding one tensor at a time, and return the number of files.

    Args:
        directory: the directory, which exists.
        entries: every tensor's shape and dtype.
        tensors: the tensors in the order of `entries`.
        progress: receives the number of bytes written since the last call.
    """
    shards = _shards(entries)
    if len(shards) == 1:
        write_tensors(directory / SINGLE, entries, tensors, progress=progress)
        return 1
    stem = SINGLE.removesuffix(".safetensors")
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        write_tensors(directory / name, shard, islice(tensors, len(shard)), progress=progress)
        places |= dict.fromkeys(shard, name)
    total = sum(entry.bytes for entry in entries.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_text(directory / INDEX, json.dumps(index, indent=2, ensure_ascii=False) + "\n")
    return len(shards)


def _shards(entries: Mapping[str, TensorEntry]) -> list[dict[str, TensorEntry]]:
    shards: list[dict[str, TensorEntry]] = [{}]
    size = 0
    for name, entry in entries.items():
        if shards[-1] and size + entry.bytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = entry
        size += entry.bytes
    return shards
