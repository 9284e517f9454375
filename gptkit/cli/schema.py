"""`gptkit schema`: the JSON Schema of spec files, as of what is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gptkit.cli import console
from gptkit.core.errors import GptkitError


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to this file.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of spec files, plugins' components included.

    An editor that knows YAML completes and checks a spec whose first line is
    "# yaml-language-server: $schema=gptkit.reflect.schema.json".
    """
    text = schema_text()
    if output is None:
        console.out(text.rstrip("\n"))
        return
    write(output, text)
    console.note(f"{output} written")


def write(file: Path, text: str) -> None:
    """Write a file, or say why it cannot be written."""
    try:
        file.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise GptkitError(f"{file} cannot be written: {error.strerror}") from None


def schema_text() -> str:
    """The schema as a file's content."""
    from gptkit.reflect.schema import json_schema
    from gptkit.runs.spec import ExperimentSpec

    return json.dumps(json_schema(ExperimentSpec), indent=1, ensure_ascii=False) + "\n"
