"""Checks of corpora. Relative paths meet a directory ``data`` with a text file, a Markdown file and JSON lines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from gptkit.kinds.data import Document
from gptkit.testing.check import Checks, expect, skip
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()

SOME = 200
"""Number of documents that are checked; a corpus may be endless."""


def _some(subject: Subject) -> list[Any]:
    return list(itertools.islice(subject.spec.documents(subject.base), SOME))


@checks.add("gives-documents", "Preparation requires texts that are not empty, and messages name their sources.")
def gives_documents(subject: Subject) -> None:
    result = _some(subject)
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


@checks.add(
    "fingerprint", "Prepared tokens are reused while the fingerprint is unchanged, so it must change with the documents."
)
def fingerprint(subject: Subject) -> None:
    first = subject.spec.fingerprint(subject.base)
    expect(isinstance(first, str) and first, f"the fingerprint is {first!r}; it must be a non-empty string")
    expect(subject.spec.fingerprint(subject.base) == first, "two calls return different fingerprints")
    before = _some(subject)
    changed = {path: path.read_bytes() for path in sorted((subject.base / "data").iterdir())}
    try:
        for path, data in changed.items():
            path.write_bytes(data + (b'{"text": "more"}\n' if path.suffix == ".jsonl" else b"\nmore\n"))
        if _some(subject) == before:
            skip("its documents do not come from files below the base directory")
        expect(subject.spec.fingerprint(subject.base) != first, "its documents changed, but its fingerprint did not")
    finally:
        for path, data in changed.items():
            with suppress(OSError):
                path.write_bytes(data)
