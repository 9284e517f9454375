"""`gptkit export`: a run becomes a model that other libraries load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gptkit.cli import console
from gptkit.cli.import_ import transfer
from gptkit.cli.options import RunFolder

__all__ = ["Format", "Type", "export"]


class Format(StrEnum):
    """What a model can be exported to."""

    HUGGING_FACE = "hugging-face"
    GGUF = "gguf"


class Type(StrEnum):
    """What the matrices of a GGUF file are written as."""

    F32 = "f32"
    F16 = "f16"


def export(
    run: RunFolder,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="The folder to write (for gguf: the file). By default of the run's name, in exports/.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[Format, typer.Option("--to", help="The format.")] = Format.HUGGING_FACE,
    family: Annotated[
        str | None,
        typer.Option("--family", metavar="NAME", help="As which family; one that fits by default.", show_default=False),
    ] = None,
    type: Annotated[Type, typer.Option("--type", help="What a GGUF file's matrices are written as.")] = Type.F32,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Write a run as transformers and vLLM (hugging-face) or llama.cpp (gguf) load it.

    A model that the format cannot express is refused, with what stands in the way.
    """
    name = Path(run).resolve().name
    with transfer("exporting", quiet) as progress:
        if to is Format.GGUF:
            from gptkit.runs.gguf import export_gguf

            file = target or Path("exports") / f"{name}.gguf"
            made = export_gguf(run, file, type=type.value, family=family, progress=progress)
        else:
            from gptkit.runs.exporting import export_model

            made = export_model(run, target or Path("exports") / name, family=family, progress=progress)
    console.note(f"exported to {made}")
    if to is Format.HUGGING_FACE and not (made / "tokenizer.json").exists():
        console.note("without a tokenizer: the run's cannot be written as tokenizer.json; bpe, tiktoken and byte can")
