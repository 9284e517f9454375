"""`gptkit export`: convert a run to the format of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.import_ import transfer
from gptkit.cli.options import Quiet, RunDirectory, complete_formats

__all__ = ["export"]


def export(
    run: RunDirectory,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="The file or directory to write; by default one with the run's name in exports/.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="The format; by default that of PATH's suffix (.gguf, .pt2, .onnx), else hugging-face.",
            autocompletion=complete_formats,
            show_default=False,
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            metavar="NAME",
            help="The model family; by default one that can express the model.",
            show_default=False,
        ),
    ] = None,
    type: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="The type of matrices, for formats with that option (gguf: f32, f16, bf16, q8_0, q4_0, q4_k, q6_k).",
            show_default=False,
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Set an option of the format. Repeatable."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Export a run for transformers and vLLM, llama.cpp, torch or ONNX Runtime, or in the format of a plugin.

    The formats are hugging-face, gguf, torch-export (.pt2) and onnx (.onnx); the last two are programs that need no gptkit.

    A model that the format cannot express is refused with the reason. The export is read back, and its logits are compared
    with the run's (not with --quiet). Options of a format: gptkit components format NAME.
    """
    with transfer("exporting", quiet) as progress:
        import_torch()
        from gptkit.kinds.format import Note
        from gptkit.runs.exporting import export as write

        made = write(
            run,
            target,
            to=to,
            options=_options(type, options or []),
            family=family,
            compare=not quiet,
            progress=progress,
        )
    if not quiet:
        console.note(f"exported to {made.path}")
        for sentence in made.report:
            console.note(sentence)
    for remark in made.remarks:
        if not isinstance(remark, Note):
            console.warn(remark)
        elif not quiet:
            console.note(remark)


def _options(type: str | None, options: list[str]) -> dict[str, Any]:
    from gptkit.files.nodes import lift
    from gptkit.files.overrides import apply_overrides

    root = lift({} if type is None else {"type": type})
    result: dict[str, Any] = apply_overrides(root, options).plain()
    return result
