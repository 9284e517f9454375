"""The container: metadata, a table of tensors, their numbers.

::

    "GGUF"  version  number of tensors  number of metadata entries
    metadata    key, type, value                                      strings are a length and UTF-8
    tensors     name, number of dimensions, dimensions (fastest first), type, offset
    numbers     each tensor at a multiple of `general.alignment`

All numbers are little-endian. A file is untrusted: every length is checked against the rest of the file
before it is used.
"""

from __future__ import annotations

import mmap
import os
import struct
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from gptkit.checkpoint.reader import read_into
from gptkit.core.atomic import atomic_file
from gptkit.core.errors import ExternalModelError
from gptkit.core.pointers import refuse_pointer
from gptkit.interop.formats.gguf.metadata import Typed

__all__ = ["AGAIN", "Element", "GgufFile", "GgufTensor", "Packed", "Typed", "n_bytes", "write_gguf"]

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
AGAIN = "Get the file again: it is damaged, or was not copied whole."
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY, _FLOAT = 8, 9, 6
_PLAIN = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}
"""The types of tensors that are numbers as torch has them; all others are read by the `gguf` package."""
_PLAIN_TYPES = {dtype: number for number, dtype in _PLAIN.items()}
_MAX_DIMENSIONS, _LONGEST_NAME = 4, 1024
_PART = 2**20
"""Elements that are dequantized at once, at least a row."""


@dataclass(frozen=True)
class Packed:
    """A quantized type in which a tensor is written.

    Attributes:
        type: the number of the type.
        n_bytes: size of the tensor.
        pack: function that returns the bytes of a tensor, uint8.
    """

    type: int
    n_bytes: int
    pack: Callable[[Tensor], Tensor]


Element = torch.dtype | Packed
"""How a tensor is written: float32, float16, bfloat16, float64, or quantized."""


@dataclass(frozen=True)
class GgufTensor:
    """A tensor as the file's table describes it.

    Attributes:
        shape: as torch has it, the fastest dimension last.
        type: the number of the type.
        begin, end: where its bytes are in the file.
    """

    shape: tuple[int, ...]
    type: int
    begin: int
    end: int

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensor as it is read."""
        return _PLAIN.get(self.type, torch.float32)


class GgufFile:
    """A file, which stays open; its tensors are read on request, so only those in use count as memory of the process.

    Attributes:
        metadata: by key, in the order of the file.
        tensors: by name, in the order of the file.

    Raises:
        ExternalModelError: it is not a GGUF file, or is damaged; says where.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_pointer(path)
        try:
            self._stream = path.open("rb", buffering=0)
            weakref.finalize(self, self._stream.close)
            size = os.fstat(self._stream.fileno()).st_size
            # An empty file cannot be mapped.
            self._head: Any = mmap.mmap(self._stream.fileno(), 0, access=mmap.ACCESS_READ) if size else BytesIO()
        except (OSError, ValueError) as error:
            raise ExternalModelError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
        self._at, self._size = 0, size
        if self._take(4) != MAGIC:
            raise ExternalModelError(f"{path} is not a GGUF file", hint="Give a file that llama.cpp reads.")
        version = self._scalar("I")
        if version not in (2, 3):
            what = "is big-endian" if version & 0xFFFF == 0 else f"has version {version}"
            raise ExternalModelError(f"{path} {what}, which gptkit does not read", hint="Convert it with llama.cpp.")
        n_tensors, n_entries = self._count(24), self._count(13)
        self.metadata = self._unique(self._entry for _ in range(n_entries))
        alignment = self.metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= 2**20 or alignment & (alignment - 1):
            self._fail(f"general.alignment is {alignment!r}")
        headers = self._unique(self._header for _ in range(n_tensors))
        start = -(-self._at // alignment) * alignment
        self.tensors = {name: self._place(name, start, *header) for name, header in headers.items()}
        self._head.close()

    def get(self, name: str) -> Tensor:
        """Read a tensor; quantized ones are dequantized to float32, some rows at once.

        Raises:
            ExternalModelError: it is quantized, and the `gguf` package is not installed; or the file was changed.
        """
        tensor = self.tensors[name]
        try:
            self._stream.seek(tensor.begin)
            if tensor.type in _PLAIN:
                return read_into(self._stream, torch.empty(tensor.shape, dtype=tensor.dtype), name)
            return self._dequantized(name, tensor)
        except OSError as error:
            raise ExternalModelError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        except ValueError as error:
            raise ExternalModelError(f"{self.path} is damaged: {error}", hint=AGAIN) from None

    def _dequantized(self, name: str, tensor: GgufTensor) -> Tensor:
        package = _package(f"{self.path}: {name} is quantized")
        result = torch.empty(tensor.shape)
        # Rows are quantized in blocks of their own.
        rows = result.view(-1, tensor.shape[-1]) if result.numel() else result.view(0, 1)
        row_bytes = (tensor.end - tensor.begin) // max(1, len(rows))
        for part in torch.split(rows, max(1, _PART // rows.shape[1])) if len(rows) else ():
            packed = read_into(self._stream, torch.empty(len(part), row_bytes, dtype=torch.uint8), name).numpy()
            try:
                # Steps of damaged or diverged matrices may be infinite, which numpy warns about.
                with np.errstate(all="ignore"):
                    numbers = package.dequantize(packed, package.GGMLQuantizationType(tensor.type))
            except NotImplementedError as error:
                raise ExternalModelError(f"{self.path}: {name}: {error}") from None
            part.copy_(torch.from_numpy(np.ascontiguousarray(numbers, np.float32)))
        return result

    def _unique(self, reads: Iterator[Callable[[], tuple[str, Any]]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for read in reads:
            name, value = read()
            if name in result:
                self._fail(f"{name!r} occurs twice")
            result[name] = value
        return result

    def _entry(self) -> tuple[str, Any]:
        return self._string(_LONGEST_NAME), self._value(self._scalar("I"))

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            value = self._scalar(_SCALARS[kind])
            # The shortest number that is the same one in float32: 1e-05, and not 9.999999747378752e-06.
            return float(str(np.float32(value))) if kind == _FLOAT else value
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            self._fail(f"metadata of the unknown type {kind}")
        inner = self._scalar("I")
        if inner == _STRING:
            return [self._string() for _ in range(self._count(8))]
        if inner not in _SCALARS:
            self._fail(f"a list of the type {inner} is not read here")
        size = struct.calcsize(_SCALARS[inner])
        count = self._count(size)
        return list(struct.unpack(f"<{count}{_SCALARS[inner]}", self._take(count * size)))

    def _header(self) -> tuple[str, tuple[tuple[int, ...], int, int]]:
        name, n_dimensions = self._string(_LONGEST_NAME), self._scalar("I")
        if n_dimensions > _MAX_DIMENSIONS:
            self._fail(f"{name!r} has {n_dimensions} dimensions")
        shape = tuple(self._scalar("Q") for _ in range(n_dimensions))
        return name, (shape[::-1], self._scalar("I"), self._scalar("Q"))

    def _place(self, name: str, start: int, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
        count = 1
        for dimension in shape:
            # What no type could hold in the whole file is stopped before the numbers grow.
            count *= dimension
            if count > 16 * self._size:
                self._fail(f"{name!r} would be larger than the file")
        if kind in _PLAIN:
            block, bytes_each = 1, _PLAIN[kind].itemsize
        else:
            package = _package(f"{self.path}: {name} is quantized")
            try:
                block, bytes_each = package.GGML_QUANT_SIZES[package.GGMLQuantizationType(kind)]
            except (ValueError, KeyError):
                self._fail(f"{name!r} has the type {kind}, which is not known")
            if not shape or shape[-1] % block:
                self._fail(f"{name!r} has rows that are not a multiple of the block length {block}")
        begin = start + offset
        end = begin + count // block * bytes_each
        if offset % bytes_each and kind in _PLAIN:
            self._fail(f"{name!r} begins amid a number")
        if end > self._size:
            self._fail(f"{name!r} would end {end - self._size:,} bytes behind the file's end")
        return GgufTensor(shape, kind, begin, end)

    def _take(self, size: int) -> bytes:
        if size > self._size - self._at:
            self._fail(f"{size:,} bytes should follow, and {self._size - self._at:,} do")
        result = bytes(self._head[self._at : self._at + size])
        self._at += size
        return result

    def _scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _count(self, each: int) -> int:
        """A number of things of which each takes at least so many bytes."""
        count: int = self._scalar("Q")
        if count * each > self._size - self._at:
            self._fail(f"{count:,} entries should follow, for which it is too short")
        return count

    def _string(self, longest: int | None = None) -> str:
        size = self._count(1)
        if longest is not None and size > longest:
            self._fail(f"a name of {size:,} bytes")
        try:
            return self._take(size).decode()
        except UnicodeDecodeError:
            self._fail("a string is not UTF-8")

    def _fail(self, what: str) -> NoReturn:
        raise ExternalModelError(f"{self.path} is damaged, near byte {self._at:,}: {what}", hint=AGAIN)


def write_gguf(
    file: Path,
    metadata: Mapping[str, Typed],
    entries: Mapping[str, tuple[Sequence[int], Element]],
    tensors: Iterable[tuple[str, Tensor]],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a file, holding one tensor at a time.

    Args:
        file: the file; it appears when all tensors are written.
        metadata: by key.
        entries: every tensor's shape and element type.
        tensors: the same tensors with their numbers, in the order of `entries`.
        progress: receives the number of bytes written since the last call.
    """
    head = bytearray(MAGIC + struct.pack("<IQQ", VERSION, len(entries), len(metadata)))
    for key, typed in metadata.items():
        head += _string(key) + _typed(typed)
    offset = 0
    for name, (shape, element) in entries.items():
        head += _string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += struct.pack("<IQ", element.type if isinstance(element, Packed) else _PLAIN_TYPES[element], offset)
        offset += _padded(n_bytes(shape, element))
    with atomic_file(file) as stream:
        stream.write(head + bytes(_padded(len(head)) - len(head)))
        for (name, (shape, element)), (given, tensor) in zip(entries.items(), tensors, strict=True):
            assert given == name
            assert tuple(tensor.shape) == tuple(shape), (name, tensor.shape, shape)
            flat = _bytes(tensor.detach(), element)
            assert flat.numel() == n_bytes(shape, element), name
            stream.write(flat.numpy().data)
            stream.write(bytes(_padded(flat.numel()) - flat.numel()))
            if progress is not None:
                progress(flat.numel())


def n_bytes(shape: Sequence[int], element: Element) -> int:
    """Return the size of a tensor in a file."""
    return element.n_bytes if isinstance(element, Packed) else torch.Size(shape).numel() * element.itemsize


def _bytes(tensor: Tensor, element: Element) -> Tensor:
    if isinstance(element, Packed):
        return element.pack(tensor)
    return tensor.to("cpu", element).contiguous().view(-1).view(torch.uint8)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(typed: Typed) -> bytes:
    match typed.type, typed.value:
        case "u32", value:
            return struct.pack("<II", 4, value)
        case "f32", value:
            return struct.pack("<If", _FLOAT, value)
        case "bool", value:
            return struct.pack("<I?", 7, value)
        case "string", value:
            return struct.pack("<I", _STRING) + _string(value)
        case "i32s", values:
            return struct.pack(f"<IIQ{len(values)}i", _ARRAY, 5, len(values), *values)
        case "f32s", values:
            return struct.pack(f"<IIQ{len(values)}f", _ARRAY, _FLOAT, len(values), *values)
        case "strings", values:
            return struct.pack("<IIQ", _ARRAY, _STRING, len(values)) + b"".join(map(_string, values))
    raise ValueError(f"no such type: {typed.type}")


def _package(why: str) -> Any:
    """Import the `gguf` package, required for quantized types."""
    try:
        import gguf
    except ImportError:
        raise ExternalModelError(f"{why}, and gptkit cannot read it alone", hint="Run: pip install 'gptkit[gguf]'") from None
    return gguf
