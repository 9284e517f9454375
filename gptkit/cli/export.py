"""`gptkit export`: a run becomes a model that other libraries load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gptkit.cli import console
from gptkit.cli.import_ import transfer
from gptkit.cli.options import RunFolder

__all__ = ["Format", "export"]


class Format(StrEnum):
    """What a model can be exported to."""

    HUGGING_FACE = "hugging-face"


def export(
    run: RunFolder,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="The folder to write. By default beside the run's name, in exports/.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[Format, typer.Option("--to", help="The format.")] = Format.HUGGING_FACE,
    family: Annotated[
        str | None,
        typer.Option("--family", metavar="NAME", help="As which family; one that fits by default.", show_default=False),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Write a run as transformers and vLLM load it.

    A model that the format cannot express is refused, with what stands in the way.
    """
    name = Path(run).resolve().name
    with transfer("exporting", quiet) as progress:
        from gptkit.experiments.exporting import export_model

        made = export_model(run, target or Path("exports") / name, family=family, progress=progress)
    console.note(f"exported to {made}")
