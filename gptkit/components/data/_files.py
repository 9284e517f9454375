"""Shared code of data components that read files: finding them, and fingerprints."""

from __future__ import annotations

import errno
import fnmatch
import glob
import hashlib
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gptkit.components.data._opening import COMPRESSED
from gptkit.core.errors import DataError
from gptkit.core.outputs import is_output
from gptkit.core.paths import expand_home
from gptkit.kinds.data import DataSpec

__all__ = ["Paths", "Patterns", "caution_ignored", "conversion_command", "find_files", "fingerprint_files", "shown"]

_LISTED = 5

_BY_CONTENT = 64 << 20
"""Corpora up to this number of bytes are fingerprinted by content, larger ones by size and modification time."""


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_Texts = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_as_tuple, json_schema_input_type=str | tuple[str, ...]),
    Field(min_length=1),
]
Paths = _Texts
"""One or several paths, each a file, a directory or a glob."""
Patterns = _Texts
"""One pattern for file names or several."""


def find_files(paths: Sequence[str], patterns: Sequence[str], base: Path) -> list[Path]:
    """Return the files that paths match, in the order of the paths, sorted within each, without duplicates.

    Directories are searched at any depth for names that match `patterns`. Links to directories are followed; no directory is
    entered twice, so loops end. Hidden files and directories are included only if a path names them, and so are the runs and
    experiments of gptkit: a model is not trained on its own samples.

    Raises:
        DataError: a path matches no file, or a link leads to none.
    """
    result: dict[str, Path] = {}
    for written in paths:
        here = _expand(written, patterns, base)
        for file in here:
            result.setdefault(os.path.realpath(file), file)
    return list(result.values())


def _ignored(paths: Sequence[str], patterns: Sequence[str], base: Path) -> Counter[str]:
    """Return the number of files in searched directories whose names match no pattern, by suffix (``""``: none).

    Raises:
        DataError: a path matches no file.
    """
    others: list[Path] = []
    included = {os.path.realpath(file) for written in paths for file in _expand(written, patterns, base, others)}
    real = {os.path.realpath(file): file for file in others}
    return Counter(_suffix(file) for name, file in real.items() if name not in included)


def caution_ignored(data: DataSpec, paths: Sequence[str], patterns: Sequence[str], base: Path) -> Iterator[str]:
    """Yield a sentence if directories have files that the default patterns do not match; chosen patterns are intended."""
    if patterns != type(data).model_fields["patterns"].get_default():
        return
    ignored = _ignored(paths, patterns, base)
    if not ignored:
        return
    count, name = sum(ignored.values()), getattr(data, "name", "")
    suffixes = [f"{number:,} {suffix or 'without a suffix'}" for suffix, number in ignored.most_common(_LISTED)]
    more = [f"{len(ignored) - _LISTED:,} other suffixes"] if len(ignored) > _LISTED else []
    records = sorted({".jsonl", ".ndjson"} & {suffix.partition(".gz")[0] for suffix in ignored})
    remedy = "Set data.patterns to the names that are to be read"
    if records:
        remedy += f"; for the texts in {' and '.join(records)}, set data.name to jsonl"
    yield (
        f"data.path: {count:,} {'file is' if count == 1 else 'files are'} ignored, whose names data {name!r} does not read: "
        f"{', '.join([*suffixes, *more])}. {remedy}"
    )


def _suffix(file: Path) -> str:
    """Return the suffix, with the one before it for a compressed file: ``.csv.gz``."""
    name = os.fsencode(file.name).decode(errors="replace")
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    return "".join(suffixes if suffixes[-1:] and suffixes[-1] in COMPRESSED else suffixes[-1:])


def _from(base: Path, path: Path) -> str:
    """Return a path as it is written in a spec of the directory `base`."""
    try:
        return os.path.relpath(path.resolve(), base.resolve())
    except ValueError:  # another drive
        return str(path)


def _expand(written: str, patterns: Sequence[str], base: Path, others: list[Path] | None = None) -> list[Path]:
    """Return the files that a path matches; add those in its directories that match no pattern to `others`."""
    relative = expand_home(written, "data.path")
    if (
        relative.name == "**"
    ):  # depending on Python's version, this pattern matches files or directories only; a directory covers both
        relative = relative.parent
    path = base / relative
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EACCES):
            raise DataError(f"{path}: {error.strerror}") from None
    except ValueError:
        pass  # a zero byte: found nowhere
    if path.is_file():
        return [path]
    if path.is_dir():
        files = _walk(path, patterns, others)
        if not files:
            raise DataError(
                f"{path}: no file in this directory is named {' or '.join(patterns)}",
                hint="Set `patterns` to the names of your files, or use a file or a glob as path.",
            )
        return files
    if path.exists():
        raise DataError(f"{path}: neither a file nor a directory")
    if path.is_symlink():
        raise _dangling(path)
    if not glob.has_magic(written):
        if re.match(r"[a-z][a-z0-9+.-]*://", written, re.IGNORECASE):
            raise DataError(f"{written}: an address, not a path", hint="Download it; data.path names files of this machine.")
        if "$" in written:
            raise DataError(
                f"{path}: file or directory not found",
                hint="Environment variables are not replaced in a spec; write the path, which may begin with ~.",
            )
        here = Path(relative).absolute()
        raise DataError(
            f"{path}: file or directory not found",
            hint=f"Relative paths count from {base.resolve()}; write {_from(base, here)}."
            if here.exists()
            else f"Relative paths count from {base.resolve()}; write a file, a directory or a glob such as books/*.txt.",
        )
    try:
        root = Path(relative.anchor) if relative.is_absolute() else base
        pattern = relative.relative_to(relative.anchor)
        matches = sorted(root.glob(str(pattern)))
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"{written!r} is not a valid glob pattern: {error}") from None
    files = []
    for match in matches:
        if _is_named(match, root, pattern):
            if match.is_symlink() and not match.exists():
                raise _dangling(match)
            files += _walk(match, patterns, others) if match.is_dir() else [match] if match.is_file() else []
    if not files:
        raise DataError(f"{path}: no file matches this glob", hint=f"Relative globs count from {base.resolve()}.")
    return files


def _dangling(link: Path) -> DataError:
    hint = "Correct or remove the link, or fetch its file."
    return DataError(f"{link}: a link to {link.readlink()}, which leads to no file", hint=hint)


def _is_named(match: Path, root: Path, pattern: Path) -> bool:
    """Return whether a match of a glob is included: the parts that a wildcard stands for are not hidden and no output."""
    literal = next((index for index, part in enumerate(pattern.parts) if glob.has_magic(part)), len(pattern.parts))
    dotted = [part for part in pattern.parts[literal:] if part.startswith(".")]
    parts = match.relative_to(root).parts
    for end, part in enumerate(parts[literal:], start=literal + 1):
        if part.startswith(".") and part != ".." and not any(fnmatch.fnmatchcase(part, named) for named in dotted):
            return False
        if is_output(root.joinpath(*parts[:end])):
            return False
    return True


def _walk(directory: Path, patterns: Sequence[str], others: list[Path] | None = None) -> list[Path]:
    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename}: {error.strerror}")

    files: list[Path] = []
    entered: set[str] = set()
    wanted = [pattern.lower() for pattern in patterns]
    for here, directories, names in os.walk(directory, followlinks=True, onerror=unreadable):
        real = os.path.realpath(here)
        if real in entered:
            directories.clear()
            continue
        entered.add(real)
        directories[:] = sorted(name for name in directories if not (name.startswith(".") or is_output(Path(here, name))))
        for name in names:
            matches = any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in wanted)
            if name.startswith(".") or not (matches or others is not None):
                continue
            file = Path(here, name)
            if file.is_file():
                (files if matches or others is None else others).append(file)
            elif matches and file.is_symlink() and not file.exists():
                raise _dangling(file)
    return sorted(files, key=lambda file: file.parts)


def shown(path: Path, base: Path) -> str:
    """Return a path for messages, relative to `base` if it is below it."""
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def fingerprint_files(files: Sequence[Path], *facts: object) -> str:
    """Return a short text that changes when the files, their order or the facts change.

    Corpora of up to 64 MiB are identified by their contents, so a copy elsewhere has the same fingerprint; larger ones by
    sizes and modification times, which takes no time.
    """
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    path = Path()
    try:
        stats = [path.stat() for path in files]
        by_content = sum(stat.st_size for stat in stats) <= _BY_CONTENT
        for path, stat in zip(files, stats, strict=True):
            if by_content:
                content = path.read_bytes()
                digest.update(b"\0%b %d\0" % (os.fsencode(path.suffix), len(content)))
                digest.update(content)
            else:
                digest.update(b"\0%b %d %d\0" % (os.fsencode(path.suffix), stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        # Errors while reading an open file do not name the file, unlike errors while opening it.
        raise DataError(f"{error.filename or path}: {error.strerror}") from None
    return digest.hexdigest()


def conversion_command(path: Path) -> str:
    """Return the command that converts a file to UTF-8, with ``{options}`` for those of iconv that name its encoding."""
    source, target = (
        shlex.quote(str(file)).replace("{", "{{").replace("}", "}}") for file in (path, path.with_name(f"utf8-{path.name}"))
    )
    return f"iconv {{options}} -t UTF-8 {source} > {target}"
