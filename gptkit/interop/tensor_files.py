"""Safetensors files: headers are read without the tensors, and tensors are read and written one by one.

So a model is converted in the memory that its largest tensor takes.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from gptkit.checkpoint.reader import TensorReader
from gptkit.core.atomic import atomic_file, reading
from gptkit.core.errors import ExternalModelError
from gptkit.core.paths import require_utf8
from gptkit.core.pointers import refuse_pointer
from gptkit.kinds.format import Progress, TensorEntry

__all__ = ["TensorFiles", "counted", "read_json", "write_tensors"]

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
MAX_JSON = 64 * 2**20
_AGAIN = "Get the file again: it is damaged, or was not copied whole."
_SHARD = re.compile(r".*-(\d+)-of-(\d+)\.safetensors")
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPES |= {"I64": torch.int64, "I32": torch.int32}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class TensorFiles:
    """The tensors of a directory (one file, or several with an index) or of a file; each is read on request.

    The files are open and not mapped: a model larger than memory can be converted, and only the tensors in use count as
    memory of the process.

    Raises:
        ExternalModelError: a file is missing or damaged, or holds elements that are not plain floating-point numbers.
    """

    def __init__(self, path: Path) -> None:
        self.entries: dict[str, TensorEntry] = {}
        self._readers: dict[str, tuple[Path, TensorReader]] = {}
        for file in _parts(path):
            reader = _open(file)
            for name, (shape, dtype) in reader.tensors.items():
                # Other dtypes are those of masks and indices; a family that needs one gets an error then.
                self.entries[name] = TensorEntry(shape, _DTYPES.get(dtype, torch.int8))
                self._readers[name] = file, reader

    def get(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            ExternalModelError: the file was changed or cannot be read.
        """
        file, reader = self._readers[name]
        try:
            return reader.get(name)
        except OSError as error:
            raise ExternalModelError(f"{file} cannot be read: {error.strerror or error}") from None
        except ValueError as error:
            raise ExternalModelError(f"{file} is damaged: {error}", hint=_AGAIN) from None


def write_tensors(
    file: Path,
    entries: Mapping[str, TensorEntry],
    tensors: Iterator[tuple[str, Tensor]],
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a safetensors file, holding one tensor at a time.

    Args:
        file: the file; it appears when all tensors are written.
        entries: every tensor's shape and dtype.
        tensors: the tensors in the order of `entries`.
        metadata: strings for the file's header.
        progress: receives the number of bytes written since the last call.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for name, entry in entries.items():
        dtype = _NAMES[entry.dtype]
        header[name] = {"dtype": dtype, "shape": list(entry.shape), "data_offsets": [offset, offset + entry.bytes]}
        offset += entry.bytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with atomic_file(file) as stream:
        stream.write(struct.pack("<Q", len(head)) + head)
        for (name, entry), (given, tensor) in zip(entries.items(), tensors, strict=True):
            assert given == name
            assert tuple(tensor.shape) == entry.shape, (name, tensor.shape, entry.shape)
            flat = tensor.detach().to("cpu", entry.dtype).contiguous().view(-1)
            if flat.numel():
                stream.write(flat.view(torch.uint8).numpy().data)
            if progress is not None:
                progress(entry.bytes)


def counted(total: int, progress: Progress | None) -> Callable[[int], None]:
    """Return a function that adds up numbers of bytes and reports the sum and the total to `progress`."""
    done = 0

    def report(written: int) -> None:
        nonlocal done
        done += written
        if progress is not None:
            progress(done, total)

    return report


def read_json(file: Path) -> dict[str, Any]:
    """Return the contents of an untrusted JSON file.

    Raises:
        ExternalModelError: it is missing, too large, or does not contain a mapping.
    """
    refuse_pointer(file)
    try:
        if file.stat().st_size > MAX_JSON:
            raise ExternalModelError(f"{file} is larger than {MAX_JSON >> 20} MB, the largest size that is read")
        result = json.loads(file.read_bytes())
    except OSError as error:
        raise ExternalModelError(f"{file}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise ExternalModelError(f"{file} is not JSON: {error}", hint=_AGAIN) from None
    if not isinstance(result, dict):
        raise ExternalModelError(f"{file} does not contain a mapping", hint=_AGAIN)
    return result


def _parts(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    if (path / INDEX).is_file():
        weight_map = read_json(path / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise ExternalModelError(f"{path / INDEX} has no weight_map", hint=_AGAIN)
        names = sorted(set(weight_map.values()))
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise ExternalModelError(f"{path / INDEX} names a file outside of its directory: {outside[0]!r}")
        return [path / name for name in names]
    shards = _shards(path)
    if shards:
        return shards
    pickles = sorted(file.name for ending in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in path.glob(ending))
    if pickles:
        raise ExternalModelError(
            f"{path} holds its weights in pickle files ({', '.join(pickles[:3])}), which can run code when they are loaded",
            hint="If you trust them, load the model with transformers and save it again as safetensors: save_pretrained.",
        )
    raise ExternalModelError(f"{path} has no safetensors files", hint="Give a directory with model.safetensors.")


def _shards(path: Path) -> list[Path]:
    """Return numbered shards that have no index, if they are complete, or the only safetensors file."""
    result = sorted(path.glob("*.safetensors"))
    numbers = [match for file in result if (match := _SHARD.fullmatch(file.name))]
    if len(result) == 1 and not numbers:
        return result
    if numbers and len(numbers) == len(result) == int(numbers[0][2]):
        return result
    if result:
        names = ", ".join(file.name for file in result[:4])
        raise ExternalModelError(f"{path} is incomplete: it has {names}, and neither {SINGLE} nor {INDEX}", hint=_AGAIN)
    return []


def _open(file: Path) -> TensorReader:
    refuse_pointer(file)
    try:
        # The library reports a refused permission as it reports damage.
        with reading(file), file.open("rb"):
            pass
        require_utf8(file)
        return TensorReader(file)
    except FileNotFoundError:
        raise ExternalModelError(f"{file} is missing", hint=_AGAIN) from None
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        raise ExternalModelError(f"{file} is damaged: {error}", hint=_AGAIN) from None
