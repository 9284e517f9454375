"""Reading of single tensors from a safetensors file, without mapping the file into memory.

The pages of a mapped file that were used count as memory of the process until the system reclaims them, and a process with
a limit can be ended for them. A conversion reads every tensor once, so it reads each one into memory that is then released.
"""

from __future__ import annotations

import json
import struct
import weakref
from io import RawIOBase
from math import prod
from pathlib import Path

import safetensors
import torch
from torch import Tensor

__all__ = ["TensorReader", "read_into"]

_PART = 2**20
"""Elements that are converted at once."""
_DTYPES = {
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "I8": torch.int8,
    "U8": torch.uint8,
}


class TensorReader:
    """The tensors of a safetensors file, which stays open until the reader is released.

    Attributes:
        tensors: shape and dtype of each tensor, as the file's header names them ("BF16").

    Raises:
        OSError: the file is missing or cannot be read.
        safetensors.SafetensorError, ValueError, RuntimeError: it is damaged.
    """

    def __init__(self, file: Path) -> None:
        self.tensors: dict[str, tuple[tuple[int, ...], str]] = {}
        self._stream = file.open("rb", buffering=0)
        weakref.finalize(self, self._stream.close)
        # The library checks the header: every range of bytes lies in the file, and none overlap.
        with safetensors.safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a mapping)
                try:
                    view = opened.get_slice(name)
                    self.tensors[name] = tuple(view.get_shape()), str(view.get_dtype())
                except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
                    raise ValueError(f"{name} is damaged: {error}") from None
        (length,) = struct.unpack("<Q", self._stream.read(8))
        header = json.loads(self._stream.read(length))
        self._ranges = {name: tuple(header[name]["data_offsets"]) for name in self.tensors}
        self._start = 8 + length

    def get(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Read one tensor.

        Args:
            name: the tensor.
            dtype: the dtype to convert it to, in parts, so that it is never held in both; by default that of the file.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file ends before the tensor, or torch has no such dtype.
        """
        shape, written = self.tensors[name]
        begin, end = self._ranges[name]
        stored = _DTYPES.get(written)
        if stored is None:
            raise ValueError(f"{name} is of the type {written}, which torch does not have")
        if end - begin != prod(shape) * stored.itemsize:
            raise ValueError(f"{name} has {end - begin} bytes, and its shape {list(shape)} another number")
        self._stream.seek(self._start + begin)
        result = torch.empty(shape, dtype=dtype or stored)
        if result.dtype == stored:
            return read_into(self._stream, result, name)
        for part in torch.split(result.view(-1), _PART):
            part.copy_(read_into(self._stream, torch.empty(part.shape, dtype=stored), name))
        return result


def read_into(stream: RawIOBase, tensor: Tensor, name: str) -> Tensor:
    """Fill a contiguous tensor with the next bytes of a file, and return it.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file ends before the tensor `name`.
    """
    if not tensor.numel():
        return tensor
    remaining = tensor.view(-1).view(torch.uint8).numpy().data
    while remaining:
        # A system reads at most 2 GB at once.
        count = stream.readinto(remaining)
        if not count:
            raise ValueError(f"the file ends in {name}")
        remaining = remaining[count:]
    return tensor
