"""JSON Lines."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from gptkit.components.data._files import Paths, Patterns, find_files, fingerprint_files, open_file, shown
from gptkit.core.errors import DataError
from gptkit.kinds.data import DataSpec, Document


class JsonLinesDataSpec(DataSpec):
    """JSON Lines: one JSON object a line, one of its fields a document; UTF-8, plain or gzipped.

    Blank lines and empty texts are skipped.
    """

    name: Literal["jsonl"] = "jsonl"
    path: Paths = Field(("data",), description="A file, a folder, a glob such as corpus/*.jsonl, or a list of them.")
    patterns: Patterns = Field(
        ("*.jsonl", "*.ndjson", "*.jsonl.gz", "*.ndjson.gz"),
        description="Names of the files that are taken from a folder, at any depth.",
    )
    field: str = Field("text", min_length=1, description="Which field of an object is the text.")
    skip_bad_lines: bool = Field(False, description="Skip lines that are not such an object, instead of raising an error.")

    def documents(self, base: Path) -> Iterator[Document]:
        for path in find_files(self.path, self.patterns, base):
            source = shown(path, base)
            with open_file(path) as file:
                for number, line in enumerate(file, start=1):
                    if number == 1:
                        line = line.removeprefix(codecs.BOM_UTF8)
                        if line.lstrip().startswith(b"[") and not self.skip_bad_lines:
                            raise DataError(
                                f"{path}:1: a JSON array, where each line should be an object",
                                hint=f"Convert it: jq -c '.[]' {path.name} > lines-{path.name}",
                            )
                    if not line.strip():
                        continue
                    try:
                        text = _text(line, self.field)
                    except ValueError as error:
                        if self.skip_bad_lines:
                            continue
                        raise DataError(
                            f"{path}:{number}: {error}",
                            hint="Correct the line, or set `skip_bad_lines: true` to skip all such lines.",
                        ) from None
                    if text.strip():
                        yield Document(text, f"{source}:{number}")

    def fingerprint(self, base: Path) -> str:
        files = find_files(self.path, self.patterns, base)
        return fingerprint_files(files, "jsonl", self.field, self.skip_bad_lines)


def _text(line: bytes, field: str) -> str:
    """The text of a line; a `ValueError` says what is wrong with it."""
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} of the line is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("no JSON that can be read: it nests too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    if field not in value:
        raise ValueError(f"no field {field!r}; there is {', '.join(map(repr, value)) or 'none'}")
    text = value[field]
    if not isinstance(text, str):
        raise ValueError(f"field {field!r} is not a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"field {field!r} contains a lone surrogate, which is not a valid character") from None
    return text
