"""Files of a corpus, and their fingerprint."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from gptkit.core.errors import DataError
from gptkit.core.paths import expand_home

__all__ = ["FORMATS", "file_format", "find", "fingerprint", "is_saved"]

FORMATS = {
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".arrow": "arrow",
}
"""Names of formats in datasets by suffix. All files but Parquet and Arrow may also have the suffix ``.gz``."""

_BY_CONTENT = 64 << 20
"""Corpora up to this number of bytes are fingerprinted by content, larger ones by size and modification time."""


def file_format(path: Path) -> str | None:
    """Return the format given by a file's name; None if unsupported."""
    name = path.name.lower()
    if name.endswith(".gz"):
        name = name.removesuffix(".gz")
        result = FORMATS.get(Path(name).suffix)
        return result if result in ("json", "csv") else None
    return FORMATS.get(Path(name).suffix)


def is_saved(path: Path) -> bool:
    """Return whether a directory was written by `save_to_disk`."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def find(patterns: Sequence[str], base: Path) -> list[Path]:
    """Return the files, and directories written by `save_to_disk`, that match patterns; each once, sorted within a pattern.

    Raises:
        DataError: a pattern matches nothing, or a file of another format.
    """
    result: dict[Path, None] = {}
    for pattern in patterns:
        matches = list(_expand(pattern, base))
        if not matches:
            raise DataError(
                f"{base / pattern}: no file with a suffix of {', '.join(FORMATS)} found",
                hint=f"Set a file, a directory or a glob such as corpus/*.parquet, relative to {base.resolve()}.",
            )
        result.update(dict.fromkeys(matches))
    return list(result)


def _expand(pattern: str, base: Path) -> Iterator[Path]:
    path = base / expand_home(pattern, "data.path")
    if path.is_file():
        if file_format(path) is None:
            raise DataError(f"{path}: unsupported format", hint=f"Use files with a suffix of {', '.join(FORMATS)}.")
        yield path
    elif path.is_dir():
        yield from _directory(path)
    elif glob.has_magic(pattern):
        # Path.glob does not support absolute patterns.
        for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207
            matched = Path(match)
            if matched.is_dir():
                yield from _directory(matched)
            elif file_format(matched):
                yield matched
    else:
        raise DataError(f"{path}: file or directory not found", hint=f"Check the path; it is relative to {base.resolve()}.")


def _directory(path: Path) -> Iterator[Path]:
    if is_saved(path):
        yield path
        return
    for inner in sorted(path.iterdir()):
        if inner.name.startswith("."):
            continue
        if inner.is_dir():
            yield from _directory(inner)
        elif file_format(inner):
            yield inner


def fingerprint(paths: Sequence[Path], *facts: object) -> str:
    """Return a short text that changes when the files, their order or the facts change."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file()]
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    try:
        stats = [file.stat() for file in files]
        by_content = sum(stat.st_size for stat in stats) <= _BY_CONTENT
        for file, stat in zip(files, stats, strict=True):
            digest.update(f"\0{file.suffix} {stat.st_size}\0".encode())
            digest.update(file.read_bytes() if by_content else str(stat.st_mtime_ns).encode())
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from None
    return digest.hexdigest()
