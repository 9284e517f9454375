"""Checks of corpora. Relative paths meet a directory ``data`` with a text file, a Markdown file and JSON lines."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gptkit.core.errors import GptkitError
from gptkit.kinds.data import Document
from gptkit.testing.check import Checks, ContractError, expect, skip
from gptkit.testing.listing import listed_backwards
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()

SOME = 200
"""Number of documents that are checked; a corpus may be endless."""


def _some(subject: Subject) -> list[Any]:
    try:
        return list(itertools.islice(subject.spec.documents(subject.base), SOME))
    except GptkitError as error:
        remedy = "where the defaults name no file below `data`, make the field required, and let `examples` name files"
        raise ContractError(f"it gives no document: {error.message}; {remedy} of the distribution") from error


@checks.add("gives-documents", "Preparation requires texts that are not empty, and messages name their sources.")
def gives_documents(subject: Subject) -> None:
    before = Path.cwd()
    result = _some(subject)
    expect(Path.cwd() == before, "it changes the working directory of the process; join `base` and the path instead")
    expect(result, "it gives no document; if it needs files, let `examples` name files below `data`, or declare the failure")
    for index, document in enumerate(result):
        expect(isinstance(document, Document), f"document {index} is a {type(document).__name__}, not a Document")
        expect(isinstance(document.text, str) and document.text, f"document {index} has no text")
        expect(document.source.strip(), f"document {index} has an empty source")
    expect(len(result) == SOME or result[-1].ends, "the last document has ends=False, but no document follows")


@checks.add("streams", "Corpora may be larger than memory, so documents are yielded one at a time.")
def streams(subject: Subject) -> None:
    documents = subject.spec.documents(subject.base)
    expect(isinstance(documents, Iterator), f"documents() gives a {type(documents).__name__}; yield them")


@checks.add("same-order", "Reproducible runs and splits require the same order of documents every time.")
def same_order(subject: Subject) -> None:
    expect(_some(subject) == _some(subject), "two calls yield different documents, or a different order")
    one, other = subject.spec.documents(subject.base), subject.spec.documents(subject.base)
    both = list(itertools.islice(zip(one, other, strict=False), SOME))
    expect(all(first == second for first, second in both), "two concurrent iterators interfere")


@checks.add("sorts-its-files", "The order in which a system lists files differs between machines, and so would the split.")
def sorts_its_files(subject: Subject) -> None:
    files = _files(subject)
    with _restored(files):
        for path in files:
            path.with_name(f"another-{path.name}").write_bytes(path.read_bytes())
        usual = _some(subject), subject.spec.fingerprint(subject.base)
        if usual != (_some(subject), subject.spec.fingerprint(subject.base)):
            skip("two calls differ anyway; another check reports it")
        with listed_backwards():
            other = _some(subject), subject.spec.fingerprint(subject.base)
    expect(usual[0] == other[0], "the order of documents is that in which the system lists the files; sort them")
    expect(usual[1] == other[1], "the fingerprint depends on the order in which the system lists the files; sort them")


@checks.add("reports-its-files", "A missing or unreadable file is the user's error, which a DataError explains.")
def reports_its_files(subject: Subject) -> None:
    subject = _below_data(subject)
    with tempfile.TemporaryDirectory(prefix="gptkit-check-") as directory:
        _fails_well(
            lambda: list(itertools.islice(subject.spec.documents(Path(directory)), SOME)), "documents: without files"
        )
        _fails_well(lambda: subject.spec.fingerprint(Path(directory)), "fingerprint: without files")
    files = _files(subject)
    with _restored(files):
        for path in files:
            path.write_bytes(b"\xff\xfe\x00\x80{\n" + path.read_bytes())
        _fails_well(
            lambda: list(itertools.islice(subject.spec.documents(subject.base), SOME)), "documents: of files not UTF-8"
        )


def _fails_well(read: Callable[[], object], what: str) -> None:
    try:
        read()
    except GptkitError:
        pass
    except Exception as error:
        method, _, case = what.partition(": ")
        seen = f"{case}, {method} raised {type(error).__name__}: {error}"
        expect(
            False, f"{seen}; raise gptkit.core.errors.DataError with the name of the file, or read it with errors='replace'"
        )


@checks.add(
    "fingerprint", "Prepared tokens are reused while the fingerprint is unchanged, so it must change with the documents."
)
def fingerprint(subject: Subject) -> None:
    first = subject.spec.fingerprint(subject.base)
    expect(isinstance(first, str) and first, f"the fingerprint is {first!r}; it must be a non-empty string")
    expect(subject.spec.fingerprint(subject.base) == first, "two calls return different fingerprints")
    before = _some(subject)
    if _some(subject) != before:
        skip("two calls yield different documents; another check reports it")
    from_files = _differs_with_files(_below_data(subject))
    _differs_with_fields(subject, before, first)
    if not from_files:
        skip("its documents do not come from files below the base directory")


def _differs_with_files(subject: Subject) -> bool:
    """Compare the fingerprints before and after changes of files, and return whether documents come from files."""
    files, from_files = _files(subject), False
    before, first = _some(subject), subject.spec.fingerprint(subject.base)
    for path in files:
        for what, change in _CHANGES.items():
            with _restored(files):
                change(path)
                if _some_or_none(subject) in (before, None):
                    continue
                from_files = True
                changed = subject.spec.fingerprint(subject.base) != first
                expect(changed, f"its documents changed ({path.name} was {what}), but its fingerprint did not")
    return from_files


def _below_data(subject: Subject) -> Subject:
    """Return a subject with copies of the files that the spec names by absolute paths, which may be changed."""
    fields = {name: getattr(subject.spec, name) for name in type(subject.spec).model_fields}
    own = [Path(text) for value in fields.values() for text in _texts(value) if Path(text).is_absolute()]
    places = {str(path): f"data/{path.name}" for path in own if path.is_file()}
    if not places:
        return subject
    changes = {
        name: places.get(value, value) if isinstance(value, str) else [places.get(text, text) for text in value]
        for name, value in fields.items()
        if places.keys() & set(_texts(value))
    }
    copied = Subject(subject.spec.replace(**changes), subject.registry)
    for path, place in places.items():
        shutil.copy2(path, copied.base / place)
    return copied if _some_or_none(copied) else subject


def _texts(value: Any) -> list[str]:
    """Return a text, or those of a list."""
    values = value if isinstance(value, (tuple, list)) else [value]
    return [each for each in values if isinstance(each, str)]


def _differs_with_fields(subject: Subject, before: list[Any], first: str) -> None:
    """Compare the fingerprint with those of the other configurations that are checked."""
    cls = type(subject.spec)
    for fields in ({}, *cls.examples):
        try:
            spec = cls.model_validate({"name": cls.component_name(), **fields}, context={"registry": subject.registry})
            documents = list(itertools.islice(spec.documents(subject.base), SOME))
        except (ValidationError, GptkitError):
            continue
        if documents != before:
            named = ", ".join(f"{name}={value!r}" for name, value in fields.items()) or "the defaults"
            changed = spec.fingerprint(subject.base) != first
            expect(changed, f"with {named} it gives other documents, but the same fingerprint; include the fields in it")


def _some_or_none(subject: Subject) -> list[Any] | None:
    try:
        return list(itertools.islice(subject.spec.documents(subject.base), SOME))
    except GptkitError:
        return None


def _files(subject: Subject) -> list[Path]:
    return sorted((subject.base / "data").iterdir())


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + (b'{"text": "more"}\n' if path.suffix == ".jsonl" else b"\nmore\n"))


def _replace(path: Path) -> None:
    """Change a file, but not its size."""
    path.write_bytes(path.read_bytes().replace(b"river", b"ocean"))
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 2))  # a system may count times in seconds


_CHANGES: dict[str, Callable[[Path], None]] = {
    "extended": _append,
    "replaced by one of the same size": _replace,
    "removed": Path.unlink,
}


@contextmanager
def _restored(files: list[Path]) -> Iterator[None]:
    """Restore the contents and times of files afterwards, and remove those that were added."""
    held = {path: (path.read_bytes(), path.stat()) for path in files}
    try:
        yield
    finally:
        for path in sorted({path for file in files for path in file.parent.iterdir()} - held.keys()):
            path.unlink()
        for path, (data, stat) in held.items():
            with suppress(OSError):
                path.write_bytes(data)
                os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
