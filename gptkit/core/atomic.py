"""Write files and directories that appear complete or not at all.

All files that gptkit writes are written with this module. Content is written under a temporary name in the directory of its
destination, flushed to the disk, and renamed: an interruption leaves the previous file or the new one, never a part of one.
Temporary entries of a killed process are removed by the next process that writes to the same destination.

Files have the permissions that the umask gives; a file that is replaced keeps the permissions that it had. Errors of the
system name the file, as `FileError`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gptkit.core.errors import NO_ROOM, FileError

__all__ = [
    "atomic_directory",
    "atomic_file",
    "new_file_mode",
    "reading",
    "sync",
    "write_bytes",
    "write_text",
    "writing",
]


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8 with line feeds.

    Raises:
        FileError: the file cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically.

    Raises:
        FileError: the file cannot be written.
    """
    with atomic_file(path) as stream:
        stream.write(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a stream whose content becomes the file when the block ends, and is discarded if it raises.

    A symbolic link stays one: its target is replaced. A device or pipe (``/dev/stdout``) is written to directly.

    Raises:
        FileError: the file cannot be written.
    """
    with writing(path):
        target = Path(os.path.realpath(path))
        previous = _mode(target)
        if previous is not None and not stat.S_ISREG(previous):
            with target.open("wb") as stream:
                yield stream
            return
        _remove_leftovers(target)
        temporary = target.with_name(_temporary_name(target))
        try:
            with temporary.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            if previous is not None:
                temporary.chmod(stat.S_IMODE(previous))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync(target.parent)


@contextmanager
def atomic_directory(directory: Path) -> Iterator[Path]:
    """Create a directory to fill, which takes the place of `directory` when the block ends, and is removed if it raises.

    Whatever interrupts it, `directory` is the previous one, the new one or (for an instant) missing, but never a part of
    one. The caller makes sure that nothing of the user's is in the directory that is replaced.

    Raises:
        FileError: the directory cannot be written, or other processes keep replacing it.
    """
    with writing(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(directory)
        new = directory.with_name(_temporary_name(directory))
        new.mkdir()
    try:
        with _filling(directory):
            yield new
        with writing(directory):
            for path in (*new.rglob("*"), new):
                sync(path)
            _put_in_place(new, directory)
            sync(directory.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def new_file_mode(path: Path) -> int:
    """Create an empty file; return the permissions that the umask gave it.

    For files that a library then writes with permissions of its own.
    """
    path.touch()
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise the system's errors in the block as a `FileError` that says which file cannot be written."""
    try:
        yield
    except OSError as error:
        raise FileError.writing(path, error) from error


@contextmanager
def _filling(directory: Path) -> Iterator[None]:
    """Raise the errors of writing into a directory as a `FileError`; the block may read other files too."""
    try:
        yield
    except OSError as error:
        # An error of writing to an open file, unlike one of opening it, does not name the file.
        if error.filename is not None and error.errno not in NO_ROOM:
            raise
        raise FileError.writing(directory, error) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise a refused permission in the block as a `FileError` that names the file; other errors pass."""
    try:
        yield
    except PermissionError as error:
        raise FileError.reading(path, error) from error


def sync(path: Path) -> None:
    """Flush a file or directory to the disk, where the system can (Windows cannot flush directories)."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _put_in_place(new: Path, directory: Path) -> None:
    for attempt in range(10):  # another process may put its own there in between
        old = new.with_name(f"{new.name}-old{attempt}")
        with contextlib.suppress(FileNotFoundError):
            directory.rename(old)
        try:
            new.rename(directory)
        except OSError:
            if not directory.exists():
                if old.exists():
                    old.rename(directory)
                raise
        else:
            return
        finally:
            shutil.rmtree(old, ignore_errors=True)
    raise FileError(f"{directory} cannot be written: other processes keep replacing it", hint="Stop them, then try again.")


def _prefix(path: Path) -> str:
    return f".{path.name}.partial-{socket.gethostname().replace('-', '_')}-"


def _temporary_name(path: Path) -> str:
    return f"{_prefix(path)}{os.getpid()}-{secrets.token_hex(4)}"


def _remove_leftovers(path: Path) -> None:
    """Remove what processes of this machine that were killed left behind for a destination."""
    prefix = _prefix(path)
    try:
        entries = list(path.parent.iterdir())
    except PermissionError:  # a directory may be writable and not readable
        return
    for entry in entries:
        process = entry.name.removeprefix(prefix).split("-")[0]
        if entry.name.startswith(prefix) and process.isdecimal() and not _alive(int(process)):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
