"""Tensors of which several processes hold parts, written by all of them into one safetensors file.

Such a file is a header with the location of each tensor, and the tensors' bytes. The header depends on names, shapes and
dtypes only, so every process computes it and writes its parts at their locations. No process gathers a tensor, and the file
is the one that a single process would write.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from gptkit.checkpoint.sharding import sharded_type
from gptkit.nn.tensor_parallel import tensor_shards

__all__ = ["Located", "Place", "create_file", "locate", "write_parts"]

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Place(Protocol):
    """The place of a process among those of a training."""

    @property
    def part(self) -> int:
        """The number of this process's part of a batch."""

    @property
    def tensor_rank(self) -> int:
        """The number of this process in its tensor group."""


@dataclass(frozen=True)
class Located:
    """A whole tensor and the parts of it that this process writes.

    Attributes:
        shape, dtype: those of the whole tensor.
        parts: first indices and values of each part, copied to host memory. Every element is in a part of one process.
    """

    shape: torch.Size
    dtype: torch.dtype
    parts: tuple[tuple[tuple[int, ...], Tensor], ...]

    @property
    def bytes(self) -> int:
        """Size of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


def locate(model: nn.Module, name: str | None, tensor: Tensor, place: Place) -> Located:
    """Copy the parts of a tensor that this process writes.

    Args:
        model: the model.
        name: the parameter that the tensor is, or whose shape and division it has; None for other tensors.
        tensor: the tensor as this process holds it.
        place: this process.
    """
    tensor = tensor.detach()
    local, start, first = tensor, (0,) * tensor.ndim, place.part == 0
    if isinstance(tensor, sharded_type()):
        local, start, first = _local(tensor)
    shard = tensor_shards(model).get(name) if name is not None else None
    if shard is None or tensor.shape != shard.part_shape:
        parts = [(start, local)] if first and place.tensor_rank == 0 else []
        return Located(tensor.shape, tensor.dtype, _on_host(parts))
    parts = []
    dim = shard.division.dim % tensor.ndim
    part_start = whole_start = 0
    for size in shard.sizes if first else ():
        length = size // shard.count
        low, high = max(start[dim], part_start), min(start[dim] + local.shape[dim], part_start + length)
        if low < high:
            at = whole_start + shard.index * length + low - part_start
            parts.append(((*start[:dim], at, *start[dim + 1 :]), local.narrow(dim, low - start[dim], high - low)))
        part_start, whole_start = part_start + length, whole_start + size
    return Located(shard.shape, tensor.dtype, _on_host(parts))


def _local(tensor: Tensor) -> tuple[Tensor, tuple[int, ...], bool]:
    """Return a shard, its first indices, and whether this process is the first that holds it."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    assert isinstance(tensor, DTensor)
    _, start = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    coordinates: Sequence[int] = tensor.device_mesh.get_coordinate() or []
    replicas = [at for at, placement in zip(coordinates, tensor.placements, strict=True) if placement.is_replicate()]
    return tensor.to_local(), tuple(start), not any(replicas)


def _on_host(parts: list[tuple[tuple[int, ...], Tensor]]) -> tuple[tuple[tuple[int, ...], Tensor], ...]:
    # Copied on the CPU as well: the next steps change the values while these are written.
    return tuple((start, values.to("cpu", copy=True).contiguous()) for start, values in parts if values.numel())


def _layout(tensors: Mapping[str, Located]) -> Iterator[tuple[str, Located, int]]:
    """Yield the tensors with their offsets in the data, in the library's order: large elements first, then by name."""
    offset = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        yield name, tensor, offset
        offset += tensor.bytes


def _header(tensors: Mapping[str, Located], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    for name, tensor, offset in _layout(tensors):
        location = [offset, offset + tensor.bytes]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": location}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def create_file(file: Path, tensors: Mapping[str, Located], metadata: Mapping[str, str] | None = None) -> None:
    """Create a safetensors file of the final size, without the tensors' values; one process does so."""
    header = _header(tensors, metadata)
    with file.open("xb") as stream:
        stream.write(header)
        stream.truncate(len(header) + sum(tensor.bytes for tensor in tensors.values()))


def write_parts(file: Path, tensors: Mapping[str, Located], metadata: Mapping[str, str] | None = None) -> None:
    """Write this process's parts into a file that exists."""
    data = len(_header(tensors, metadata))
    with file.open("r+b") as stream:
        for _, tensor, offset in _layout(tensors):
            for start, values in tensor.parts:
                for at, run in _runs(tensor.shape, start, values):
                    stream.seek(data + offset + at * tensor.dtype.itemsize)
                    stream.write(run.view(torch.uint8).numpy().data)


def _runs(shape: torch.Size, start: tuple[int, ...], values: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the consecutive elements of a part, each with the index of its first one in the whole tensor."""
    split = max(0, values.ndim - 1)
    while split > 0 and values.shape[split] == shape[split]:
        split -= 1
    strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
    first = sum(at * stride for at, stride in zip(start, strides, strict=True))
    for index in itertools.product(*(range(size) for size in values.shape[:split])):
        yield first + sum(at * stride for at, stride in zip(index, strides, strict=False)), values[index].reshape(-1)
