"""Corpus included in Python."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from gptkit.core.errors import DataError
from gptkit.kinds.data import DataSpec, Document


class BuiltinDataSpec(DataSpec):
    """Python's help topics: about 0.5 MB of English prose included in every CPython.

    Each topic is a document, in alphabetical order. The text differs slightly between versions of Python.
    """

    name: Literal["builtin"] = "builtin"

    def documents(self, base: Path) -> Iterator[Document]:
        for topic, text in sorted(_topics().items()):
            yield Document(text, f"pydoc topic {topic}")

    def fingerprint(self, base: Path) -> str:
        return hashlib.blake2b(repr(sorted(_topics().items())).encode(), digest_size=16).hexdigest()


def _topics() -> Mapping[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(
            "this Python comes without pydoc_data.topics, the built-in corpus",
            hint="Some distributions leave it out; use another Python, or `data: {name: text, path: your.txt}`.",
        ) from None
    return dict(topics)
