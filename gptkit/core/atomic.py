"""Atomic writes of files and directories.

All files that gptkit writes are written with this module. Content is written under a temporary name in the directory of its
destination, flushed to the disk, and renamed: an interruption leaves the previous file or the new one, never a part of one.
Temporary entries of a killed process are removed by the next process that writes to the same destination.

New files have the permissions of the umask; replaced files keep their mode. Errors of the system are raised as `FileError`,
which names the file.
"""

from __future__ import annotations

import contextlib
import os
import re
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
    "remove_leftovers",
    "replace_directory",
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
    """Open a stream whose content becomes the file when the block ends, and is discarded if the block raises.

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
    """Create a directory that replaces `directory` when the block ends, and is removed if the block raises.

    After an interruption, `directory` is the previous one, the new one or (for an instant) missing, but never incomplete.
    The caller ensures that the replaced directory contains no files of the user.

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
        replace_directory(new, directory)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def replace_directory(new: Path, directory: Path) -> None:
    """Replace a directory by a complete one beside it, as `atomic_directory` does.

    Raises:
        FileError: the directory cannot be written, or other processes keep replacing it.
    """
    with writing(directory):
        for path in (*new.rglob("*"), new):
            sync(path)
        _remove_leftovers(directory)
        _put_in_place(new, directory)
        sync(directory.parent)


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files of killed processes of this machine in a directory.

    Writing a file again removes those of its own destination; this is for files that may not be written again.
    """
    pattern = re.compile(rf"\..+\.partial-{re.escape(_host())}-(\d+)-[0-9a-f]{{8}}")
    with contextlib.suppress(PermissionError, FileNotFoundError):
        for entry in list(directory.iterdir()):
            written = pattern.fullmatch(entry.name)
            if written is not None and not _alive(int(written[1])):
                _remove(entry)


def new_file_mode(path: Path) -> int:
    """Create an empty file; return its permissions, which follow the umask.

    For files that a library then writes with other permissions.
    """
    path.touch()
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise the system's errors in the block as a `FileError` that names the file."""
    try:
        yield
    except OSError as error:
        raise FileError.writing(path, error) from error
    except RecursionError as error:
        # Making a directory's parents takes a call for each.
        raise FileError(f"{str(path)[:80]}… cannot be written: too many directories", hint="Choose another path.") from error


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
    """Raise missing permissions in the block as a `FileError` that names the file; other errors are not changed."""
    try:
        yield
    except PermissionError as error:
        raise FileError.reading(path, error) from error


def sync(path: Path) -> None:
    """Flush a file or directory to the disk, if the system supports it (Windows cannot flush directories)."""
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
    for _ in range(10):  # another process may create the directory in between
        old = directory.with_name(f"{_temporary_name(directory)}-old")
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
    return f".{path.name}.partial-{_host()}-"


def _host() -> str:
    return socket.gethostname().replace("-", "_")


def _temporary_name(path: Path) -> str:
    return f"{_prefix(path)}{os.getpid()}-{os.urandom(4).hex()}"


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of killed processes of this machine for a destination."""
    prefix = _prefix(path)
    try:
        entries = list(path.parent.iterdir())
    except PermissionError:  # a directory may be writable and not readable
        return
    for entry in entries:
        process = entry.name.removeprefix(prefix).split("-")[0]
        if entry.name.startswith(prefix) and process.isdecimal() and not _alive(int(process)):
            _remove(entry)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name == "nt":  # on Windows, signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
