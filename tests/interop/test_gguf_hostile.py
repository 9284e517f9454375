"""Untrusted GGUF files: damaged and malicious files cause one clear error and leave no files."""

from __future__ import annotations

import random
import shutil
import struct
import tracemalloc
from pathlib import Path

import pytest

import gptkit
from gptkit.core.errors import ExternalModelError, GptkitError
from gptkit.interop.formats.gguf.container import GgufFile
from gptkit.runs.exporting import export_model
from tests.support.gguf_models import DECODER, make_run

HUGE = 2**62


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("gguf")
    model = {**DECODER, "n_layers": 1, "d_model": 16, "feedforward": {"name": "gated", "d_hidden": 24}}
    return export_model(make_run(directory / "run", model), directory / "model.gguf").read_bytes()


def head(n_tensors: int, n_entries: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_entries) + rest


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tensor(shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(b"a") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "4 bytes should follow, and 0 do"),
        (b"GG", "4 bytes should follow"),
        (b"PK\3\4" + bytes(40), "not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 1), "version 1"),
        (b"GGUF" + struct.pack(">I", 3), "is big-endian"),
        (head(HUGE, 0), "entries should follow"),
        (head(0, HUGE), "entries should follow"),
        (head(0, 1, struct.pack("<Q", HUGE) + bytes(20)), "entries should follow"),
        (head(0, 1, text(b"k") + struct.pack("<IIQ", 9, 8, HUGE)), "entries should follow"),
        (head(0, 1, text(b"k") + struct.pack("<IIQ", 9, 4, HUGE)), "entries should follow"),
        (head(0, 1, text(b"k") + struct.pack("<IIQ", 9, 9, 1) + bytes(40)), "a list of the type 9"),
        (head(0, 1, text(b"k") + struct.pack("<I", 77) + bytes(40)), "metadata of the unknown type 77"),
        (head(0, 1, text(b"\xff\xfe") + bytes(40)), "not UTF-8"),
        (head(0, 2, (text(b"k") + struct.pack("<I?", 7, True)) * 2), "'k' occurs twice"),
        (head(1, 0, tensor((4,)) + bytes(40)).ljust(96)[:72], "behind the file's end"),
        (head(1, 0, tensor((HUGE, HUGE)) + bytes(40)), "larger than the file"),
        (head(1, 0, tensor((1,), offset=2**63) + bytes(40)), "behind the file's end"),
        (head(1, 0, tensor((1,), offset=2) + bytes(80)), "amid a number"),
        (head(1, 0, tensor((1,), kind=999) + bytes(40)), "type 999"),
        (head(1, 0, tensor((7,), kind=8) + bytes(99)), "not a multiple of the block length 32"),
        (head(1, 0, text(b"a") + struct.pack("<I", 2**31) + bytes(40)), "2147483648 dimensions"),
    ],
)
def test_hostile_headers_are_rejected(tmp_path: Path, data: bytes, message: str) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "x.gguf").write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ExternalModelError, match=message):
            GgufFile(tmp_path / "x.gguf")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def take(data: bytes, directory: Path) -> bool:
    """Return whether the import is rejected; a rejected import must leave no files."""
    (directory / "x.gguf").write_bytes(data)
    try:
        gptkit.import_model(directory / "x.gguf", directory / "run")
    except GptkitError as error:
        assert "x.gguf" in str(error) or "describes" in str(error)
        assert not (directory / "run" / "spec.yaml").exists()
        return True
    shutil.rmtree(directory / "run")
    return False


@pytest.mark.parametrize("seed", range(5))
def test_damage_anywhere_gives_one_clear_error(sound: bytes, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    # Offset of the tensor data, after the metadata and the table.
    behind = len(sound) - sum(t.end - t.begin for t in _parse(sound, tmp_path).tensors.values())
    refused = 0
    for _ in range(100):
        data = bytearray(sound)
        # Half of the changes are in the first keys, where every byte matters, or in the table of tensors.
        where = chance.choice([chance.randrange(1200), chance.randrange(behind - 800, behind), chance.randrange(behind)])
        match chance.randrange(5):
            case 0:
                data[where] = chance.randrange(256)
            case 1:
                data = data[:where]
            case 2:
                data[where:where] = data[where : where + chance.randrange(1, 30)]
            case 3:
                data[where : where + 8] = struct.pack("<Q", chance.choice([HUGE, 2**64 - 1, 2**32, 0, 1]))
            case _:
                del data[where : where + chance.randrange(1, 30)]
        refused += take(bytes(data), tmp_path)
    assert refused > 40


def test_truncated_file_is_reported(sound: bytes, tmp_path: Path) -> None:
    assert not take(sound, tmp_path)
    for size in (len(sound) - 64, len(sound) // 2, 5000, 100, 3):
        assert take(sound[:size], tmp_path)


def _parse(data: bytes, directory: Path) -> GgufFile:
    (directory / "sound.gguf").write_bytes(data)
    return GgufFile(directory / "sound.gguf")
