"""Data `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from gptkit.core.errors import DataError
from gptkit.core.spec import fail
from gptkit.kinds.data import DataSpec, Document
from gptkit_datasets import files as corpus
from gptkit_datasets.rows import hub_commit, hub_rows, rows_of

__all__ = ["DatasetsSpec"]

_COLUMN = re.compile(r"\{([^{}]+)\}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

Paths = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(
        lambda value: (value,) if isinstance(value, str) else value, json_schema_input_type=str | tuple[str, ...]
    ),
    Field(min_length=1),
]


class DatasetsSpec(DataSpec):
    """Hugging Face datasets: Parquet, JSON, CSV and Arrow files, saved data sets, and the Hub; one document per row.

    Rows without text are skipped.

    Notes:
        A repository without a `revision` can change. With a commit as `revision` it is fixed, and prepared tokens are reused
        without network access.
    """

    name: Literal["datasets"] = "datasets"
    files: Paths = Field(("data",), description="A file, a directory, a glob such as corpus/*.parquet, or a list of them.")
    repository: str | None = Field(None, min_length=1, description="A data set of the Hub, instead of files.")
    subset: str | None = Field(None, min_length=1, description="The repository's configuration.")
    split: str = Field("train", min_length=1, description="The split of a repository or of a saved data set.")
    revision: str | None = Field(None, min_length=1, description="A commit, tag or branch of the repository.")
    field: str = Field("text", min_length=1, description="The column with the text.")
    template: str | None = Field(
        None, description="Template of the text, with columns in braces such as {question} {answer}; instead of `field`."
    )
    streaming: bool = Field(
        True, description="Stream rows; otherwise all rows are first downloaded and stored in the cache of datasets."
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of documents.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"template": "<{text}>", "limit": 2})

    @model_validator(mode="after")
    def _one_source(self) -> DatasetsSpec:
        # A complete spec contains the default too.
        chosen = self.files != type(self).model_fields["files"].default
        if self.repository is not None and chosen:
            fail("the corpus is either `files` or a `repository`; remove one", ("files",), self.files)
        if self.repository is None:
            for name in ("subset", "revision"):
                if getattr(self, name) is not None:
                    fail("applies to a `repository` only; remove it", (name,), getattr(self, name))
        if self.template is not None and not _COLUMN.search(self.template):
            fail("must contain a column in braces, such as {text}", ("template",), self.template)
        return self

    def documents(self, base: Path) -> Iterator[Document]:
        n_documents = 0
        for source, row in self._rows(base):
            text = self._text(row, source)
            if not text.strip():
                continue
            yield Document(text, source)
            n_documents += 1
            if n_documents == self.limit:
                return

    def fingerprint(self, base: Path) -> str:
        facts = ("datasets", self.field, self.template, self.limit, self.split)
        if self.repository is None:
            return corpus.fingerprint(corpus.find(self.files, base), *facts)
        commit = self.revision
        if commit is None or not _COMMIT.fullmatch(commit):
            commit = hub_commit(self.repository, self.revision)
        return corpus.fingerprint([], self.repository, self.subset, commit, *facts)

    def _rows(self, base: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield every row with its source."""
        if self.repository is not None:
            rows = hub_rows(self.repository, self.subset, self.split, self.revision, self.streaming)
            for number, row in enumerate(rows, start=1):
                yield f"{self.repository}: row {number}", row
            return
        columns = [self.field] if self.template is None else _COLUMN.findall(self.template)
        for path in corpus.find(self.files, base):
            shown = path.relative_to(base) if path.is_relative_to(base) else path
            for number, row in enumerate(rows_of(path, self.split, self.streaming, columns), start=1):
                yield f"{shown}: row {number}", row

    def _text(self, row: Mapping[str, Any], source: str) -> str:
        if self.template is None:
            return _value(row, self.field, source)
        values = {name: _value(row, name, source) for name in _COLUMN.findall(self.template)}
        if not any(value.strip() for value in values.values()):
            return ""
        return _COLUMN.sub(lambda match: values[match[1]], self.template)


def _value(row: Mapping[str, Any], column: str, source: str) -> str:
    if column not in row:
        raise DataError(
            f"{source}: no column {column!r}; columns: {', '.join(map(repr, row)) or 'none'}",
            hint="Set `field` or `template` to columns of the data.",
        )
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{source}: column {column!r} holds {type(value).__name__}, not text",
            hint="Choose a column of text, or convert it to text.",
        )
    return value
