"""Directories listed in another order, to find code that depends on the order in which the system lists files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

__all__ = ["listed_backwards"]


class _Entries(list[Any]):
    """Result of `os.scandir`: an iterator and a context manager."""

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def __next__(self) -> Any:
        if not self:
            raise StopIteration
        return self.pop(0)

    def __iter__(self) -> Iterator[Any]:
        return self


@contextmanager
def listed_backwards() -> Iterator[None]:
    """Let the system list directories in the opposite order, for `os`, `glob` and `pathlib`.

    A module that imported ``scandir`` or ``listdir`` itself (``from os import scandir``) is not affected.
    """
    listdir, scandir = os.listdir, os.scandir

    def names(*path: Any) -> Any:
        return listdir(*path)[::-1]

    def entries(*path: Any) -> _Entries:
        with scandir(*path) as listed:
            return _Entries(list(listed)[::-1])

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(os, "listdir", names))
        patches.enter_context(mock.patch.object(os, "scandir", entries))
        # Path.glob of Python 3.13 lists with a class of glob, which holds the function since its definition. A method that
        # calls os.scandir (3.14) needs no change.
        for cls in vars(glob).values():
            own = vars(cls).get("scandir") if isinstance(cls, type) else None
            if isinstance(own, staticmethod) and own.__func__ is scandir:
                patches.enter_context(mock.patch.object(cls, "scandir", staticmethod(entries)))
        yield
