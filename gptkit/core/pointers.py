"""Git LFS pointers: small text files that replace large files in a clone without them."""

from __future__ import annotations

from pathlib import Path

from gptkit.core.errors import ExternalModelError

__all__ = ["refuse_pointer"]

_HEAD = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Raise an error if a file is a Git LFS pointer; unreadable files are ignored.

    Raises:
        ExternalModelError: the file is a pointer; names the command that fetches the file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_HEAD))
    except OSError:
        return
    if head == _HEAD:
        raise ExternalModelError(
            f"{path} is a Git LFS pointer, not the file itself",
            hint=f"Fetch the files of the clone: git -C {path.parent} lfs pull",
        )
