"""Atomic writes of files and directories: permissions, interruptions, and errors."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptkit.core.atomic import atomic_directory, atomic_file, reading, remove_leftovers, write_bytes, write_text, writing
from gptkit.core.errors import FileError

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.usefixtures("umask")
def test_new_files_have_the_mode_of_the_umask_and_replaced_files_keep_their_mode(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "one")
    assert mode(file) == 0o640
    file.chmod(0o604)
    write_text(file, "two")
    assert (file.read_text(), mode(file)) == ("two", 0o604)
    with atomic_directory(tmp_path / "d") as new:
        write_bytes(new / "x", b"1")
    assert (mode(tmp_path / "d"), mode(tmp_path / "d" / "x")) == (0o750, 0o640)


def test_text_is_utf_8_with_line_feeds(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "naïve\n")
    assert (tmp_path / "a.txt").read_bytes() == "naïve\n".encode()


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_the_previous_file_and_nothing_else(tmp_path: Path, stop: type[BaseException]) -> None:
    write_text(tmp_path / "a.txt", "old")

    def interrupted() -> None:
        with atomic_file(tmp_path / "a.txt") as stream:
            stream.write(b"half")
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_full_disk_names_the_file_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"a\.txt cannot be written: No space left on device") as caught:
        write_text(tmp_path / "a.txt", "new")
    assert "Free some space" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@posix
def test_links_are_kept_and_devices_are_written_to(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    write_text(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(FileError, match=r"/dev/full cannot be written: No space left"):
        write_text(Path("/dev/full"), "x" * 100_000)
    with pytest.raises(FileError, match=f"{tmp_path.name} cannot be written: Is a directory"):
        write_text(tmp_path, "x")


def killed_write(path: Path) -> None:
    """Leave what a process leaves that is killed while it writes a file."""
    script = """
        import os, sys
        from pathlib import Path
        from gptkit.core.atomic import atomic_file
        with atomic_file(Path(sys.argv[1])) as stream:
            stream.write(b"half")
            stream.flush()
            os._exit(9)
    """
    code = "\n".join(line.removeprefix("        ") for line in script.splitlines())
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)


def test_leftovers_of_a_killed_process_are_removed_by_the_next_write(tmp_path: Path) -> None:
    killed_write(tmp_path / "a.txt")
    assert len(list(tmp_path.iterdir())) == 1
    write_text(tmp_path / "a.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_leftovers_in_a_directory_are_removed_and_nothing_else(tmp_path: Path) -> None:
    killed_write(tmp_path / "a.txt")
    (left,) = (path.name for path in tmp_path.iterdir())
    running = left.replace(left.split("-")[-2], str(os.getpid()))
    kept = sorted((running, f"{left}-old", left.lstrip("."), f"{left}.txt", "a.txt"))
    for name in kept:
        (tmp_path / name).write_text("kept")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    remove_leftovers(tmp_path / "missing")


def test_missing_permission_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"a\.txt cannot be read: Permission denied"), reading(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(FileError, match=r"a\.txt cannot be written: Permission denied"), writing(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_directory_that_cannot_be_filled_is_named_and_removed(tmp_path: Path, code: int) -> None:
    with (
        pytest.raises(FileError, match=r"made cannot be written: .*\n  Free some space"),
        atomic_directory(tmp_path / "made"),
    ):
        # An error as raised by a library while it writes to an open file.
        raise OSError(code, os.strerror(code))
    assert not list(tmp_path.iterdir())


def test_missing_file_is_not_an_error_of_the_directory_being_filled(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "made"):
        (tmp_path / "corpus.txt").read_text()


def test_a_path_of_thousands_of_directories_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deep(*_: Any, **__: Any) -> None:
        raise RecursionError

    monkeypatch.setattr(Path, "mkdir", deep)
    with pytest.raises(FileError, match="too many directories"), atomic_directory(tmp_path / "a/b"):
        pass
