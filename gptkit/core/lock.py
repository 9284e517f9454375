"""Lock of a directory, which one process at a time may write into."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from gptkit.core.atomic import writing
from gptkit.core.errors import CheckpointError

__all__ = ["HeldError", "Lock"]

_INTERVAL = 0.2


class HeldError(CheckpointError):
    """Another process holds the lock."""


class Lock:
    """File lock that one process at a time can hold. The system releases it when the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Lock:
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+", encoding="utf-8", errors="replace")
        file.seek(0)
        try:
            _lock(file)
        except OSError:
            file.seek(0)
            holder = file.read(20).strip()
            file.close()
            raise HeldError(
                f"another process{f' ({holder})' if holder else ''} is writing into {self._path.parent}",
                hint="Wait for it, stop it, or choose another directory.",
            ) from None
        file.seek(0)
        content = file.read(64).strip()
        if content and not content.isdecimal():
            file.close()
            raise CheckpointError(f"{self._path} is not a lock file of gptkit", hint="Choose another directory, or move it.")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file
        return self

    @contextmanager
    def awaited(self, patience: float) -> Iterator[None]:
        """Hold the lock in the block, once the process that holds it releases it.

        Args:
            patience: seconds to wait.

        Raises:
            HeldError: another process still holds it.
        """
        end = time.monotonic() + patience
        while True:
            try:
                self.__enter__()
            except HeldError:
                if time.monotonic() > end:
                    raise
                time.sleep(_INTERVAL)
            else:
                break
        try:
            yield
        finally:
            self.__exit__(None, None, None)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # The file is not removed: otherwise two processes could lock two files of the same name.
        if self._file is not None:
            self._file.close()
            self._file = None


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        # Beyond the text, so that other processes can read the holder.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
