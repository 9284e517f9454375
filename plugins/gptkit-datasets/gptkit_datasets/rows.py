"""Rows of Hugging Face datasets; its exceptions become errors that name the source."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gptkit.core.errors import DataError
from gptkit_datasets.files import file_format, is_saved

__all__ = ["hub_commit", "hub_rows", "rows_of"]

_ROWS = 1024
"""Number of rows of a Parquet file that are held in memory at once."""

# datasets is imported where it is used, since the import takes seconds.


def rows_of(path: Path, split: str, streaming: bool, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a file, or of a directory written by `save_to_disk`.

    Args:
        path: the file or directory.
        split: the split of a directory.
        streaming: read rows when they are needed.
        columns: the columns that are used; others of a Parquet file are not read.

    Raises:
        DataError: it cannot be read.
    """
    with _explained(str(path)):
        if streaming and file_format(path) == "parquet" and path.is_file():
            yield from _parquet_rows(path, columns)
            return
        import datasets

        if path.is_dir() and is_saved(path):
            result = datasets.load_from_disk(str(path))
            if isinstance(result, datasets.DatasetDict):
                if split not in result:
                    raise DataError(
                        f"{path}: no split {split!r}; splits: {', '.join(map(repr, result))}",
                        hint="Set `split` to one of them.",
                    )
                result = result[split]
            yield from result
            return
        # Escaped, since datasets would read the name as a pattern.
        name = glob.escape(str(path))
        yield from datasets.load_dataset(file_format(path), data_files=name, split="train", streaming=streaming)


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a Parquet file with pyarrow, which needs less time and memory than datasets."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        # A column that does not exist is reported by the reader of the row, with those that do.
        used = list(columns) if set(columns) <= set(file.schema_arrow.names) else None
        for batch in file.iter_batches(batch_size=_ROWS, columns=used):
            yield from batch.to_pylist()


def hub_rows(
    repository: str, subset: str | None, split: str, revision: str | None, streaming: bool
) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a data set of the Hub.

    Raises:
        DataError: the data set cannot be reached, or has no such part.
    """
    with _explained(repository, "Check the names of repository, subset, split and revision, and the network."):
        import datasets

        yield from datasets.load_dataset(repository, subset, split=split, revision=revision, streaming=streaming)


def hub_commit(repository: str, revision: str | None) -> str:
    """Return the commit of a revision; of the newest version for None.

    Raises:
        DataError: the Hub is unreachable, or the data set does not exist.
    """
    with _explained(repository, "Set `revision` to a commit (40 hexadecimal digits), which needs no network."):
        import huggingface_hub

        return str(huggingface_hub.HfApi().dataset_info(repository, revision=revision, timeout=20).sha)


@contextmanager
def _explained(source: str, hint: str | None = None) -> Iterator[None]:
    try:
        yield
    except (DataError, GeneratorExit):
        raise
    except Exception as error:
        # The cause is the first exception of the chain: datasets wraps the reader's error.
        cause = error
        while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        message = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise DataError(f"{source} cannot be read: {message}", hint=hint) from error
