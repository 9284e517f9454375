"""`gptkit import`: a model of another library becomes a run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import complete_runs

__all__ = ["import_model", "transfer"]


def import_model(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder as transformers saves it (config.json, safetensors, tokenizer.json), or a GGUF file.",
            show_default=False,
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="The run's folder. By default runs/NAME, NAME being the source's.",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="NAME", help="A tokenizer where the source has none.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that is there, once the new one is whole.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Import a model that was trained elsewhere: spec, weights and tokenizer.

    A key of its configuration that is not understood is refused, as it may change what the model computes.
    """
    from gptkit.runs.importing import convert_model

    name = re.sub(r"[^\w.-]+", "-", source.stem if source.is_file() else source.resolve().name).strip("-.") or "imported"
    target = folder if folder is not None else Path("runs") / name
    with transfer("importing", quiet) as progress:
        convert_model(source, target, tokenizer=tokenizer, overwrite=overwrite, progress=progress)
    console.note(f"imported into {target}")
    console.note(f'let it write: gptkit generate {target} "Once upon a time"')


@contextlib.contextmanager
def transfer(what: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar that follows bytes, where there is a terminal to show one."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    screen = console.stderr()
    if quiet or not screen.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
