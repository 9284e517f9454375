"""`gptkit schema`: print the JSON Schema of spec files with the installed components."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gptkit.cli import console
from gptkit.cli.collection import collection_paused
from gptkit.core.errors import GptkitError


def schema(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the schema to this file.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of spec files, including the components of plugins.

    Editors with a YAML language server complete and check a spec whose first line is
    "# yaml-language-server: $schema=gptkit.schema.json".
    """
    if output is None:
        console.out(schema_text().rstrip("\n"))
        return
    write_schema(output)
    console.note(f"{output} written")


def write_schema(file: Path) -> None:
    """Write the schema to a file. An existing file is replaced only if it is a schema that gptkit wrote.

    Raises:
        GptkitError: the file exists and is not a schema that gptkit wrote.
    """
    from gptkit.core.atomic import write_text

    require_replaceable(file)
    write_text(file, schema_text())


def require_replaceable(file: Path) -> None:
    """Raise an error if the schema would replace another file.

    Raises:
        GptkitError: the file exists and is not a schema that gptkit wrote.
    """
    if file.is_dir() or (file.is_file() and not _is_schema(file)):
        raise GptkitError(f"{file} exists, and is not a schema that gptkit wrote", hint="Choose another name, or move it.")


def _is_schema(file: Path) -> bool:
    from gptkit.core.atomic import reading
    from gptkit.reflect.schema_cache import WRITTEN_BY

    with reading(file), file.open(encoding="utf-8", errors="replace") as stream:
        return WRITTEN_BY in stream.read(1000)


def schema_text() -> str:
    """Return the schema as JSON text, from the cache if nothing has changed since it was built."""
    from gptkit.core.registry import default_registry
    from gptkit.reflect.schema_cache import cached_schema

    return cached_schema(default_registry(), _built)


def _built() -> str:
    from gptkit.reflect.schema import json_schema
    from gptkit.runs.spec import ExperimentSpec

    with collection_paused():
        return json.dumps(json_schema(ExperimentSpec), indent=1, ensure_ascii=False) + "\n"
