"""Random damage to files, and limits of time and memory for what reads them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gptkit.core.errors import GptkitError

__all__ = ["COUNT", "COUNTS", "SLOW", "bounded", "damaged", "forge", "read_damaged"]

COUNT = int(os.environ.get("GPTKIT_DAMAGED_FILES", "10"))
"""Number of damaged files of each kind in the fast tests."""
SLOW = int(os.environ.get("GPTKIT_DAMAGED_FILES", "50"))
"""Number in the slow tests; `make nightly` sets both to 2,000."""
COUNTS = [COUNT, pytest.param(SLOW, marks=pytest.mark.slow)]

_NUMBERS = (2**62, 2**64 - 1, 2**32, 2**31, 0, 1)
_TEXTS = (b"null", b"-1", b"1e400", b"[[[[", b'"', b"{", b"\xff\xfe", b"NaN", b"999999999999")


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return the data with one change; most changes are at the beginning, where every byte matters."""
    result = bytearray(data)
    where = chance.randrange(max(1, min(len(data), chance.choice((64, 1024, 16384, len(data))))))
    match chance.randrange(7):
        case 0 if data:
            result[where] = chance.randrange(256)
        case 1 if data:
            result[where] ^= 1 << chance.randrange(8)
        case 2:
            result = result[:where]
        case 3:
            result[where:where] = result[where : where + chance.randrange(1, 40)]
        case 4:
            del result[where : where + chance.randrange(1, 40)]
        case 5:
            result[where : where + 8] = struct.pack("<Q", chance.choice(_NUMBERS))
        case _:
            text = chance.choice(_TEXTS)
            result[where : where + chance.choice((0, 1, len(text)))] = text
    return bytes(result)


def forge(checkpoint: Path) -> None:
    """Write the sizes and checksums of a checkpoint's files as they are into its state.json."""
    file = checkpoint / "state.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    for name in state["files"]:
        data = (checkpoint / name).read_bytes()
        state["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    file.write_text(json.dumps(state), encoding="utf-8")


@contextlib.contextmanager
def bounded(seconds: int = 60, gigabytes: int = 6) -> Iterator[None]:
    """Raise an error if the body takes longer, or needs more memory: a size in a file must not be trusted."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} seconds")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) if Path("/proc/self/statm").exists() else 0
    previous = signal.signal(signal.SIGALRM, late)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + gigabytes * 2**30, hard))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def read_damaged(file: Path, count: int, read: Callable[[], object], *, blamed: tuple[str, ...] = ()) -> int:
    """Damage a file so many times, and read it each time; return how many were refused. The file is restored.

    Args:
        file: the file.
        count: how many times.
        read: reads the file.
        blamed: texts of which a refusal has one, if not the name of the file.
    """
    sound, chance, refused = file.read_bytes(), random.Random(file.name), 0
    for number in range(count):
        file.write_bytes(damaged(sound, chance))
        try:
            with bounded():
                read()
        except GptkitError as error:
            refused += 1
            assert any(text in str(error) for text in (file.name, *blamed)), str(error)
        except BaseException as error:
            error.add_note(f"damaged file {number} of {file.name!r}")
            raise
    file.write_bytes(sound)
    return refused
