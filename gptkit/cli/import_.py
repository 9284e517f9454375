"""`gptkit import`: convert an external model to a run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.options import Quiet, complete_formats, complete_runs
from gptkit.core.activity import working
from gptkit.core.commands import command
from gptkit.core.paths import real

__all__ = ["import_model", "transfer"]


def import_model(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A directory saved by transformers, a GGUF file, or a model in a plugin's format.",
            show_default=False,
        ),
    ],
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="The run directory; by default runs/ and the name of PATH.",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="NAME|PATH",
            help="Tokenizer to use instead of the source's: a component, or a directory with a tokenizer.json.",
            show_default=False,
        ),
    ] = None,
    resize: Annotated[
        bool,
        typer.Option("--resize", help="Add an embedding row for each token id without one: the mean of the others."),
    ] = False,
    format: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help="The format; detected by default.",
            autocompletion=complete_formats,
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in the directory, once the new one is complete.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Import an external model: spec, weights and tokenizer.

    An unsupported key of its configuration is an error, because it may change what the model computes.
    """
    name = re.sub(r"[^\w.-]+", "-", source.stem if source.is_file() else real(source).name).strip("-.") or "imported"
    target = directory if directory is not None else Path("runs") / name
    with transfer("importing", quiet) as progress:
        import_torch()
        from gptkit.runs.importing import convert_model

        convert_model(
            source,
            target,
            format=format,
            tokenizer=tokenizer,
            resize=resize,
            overwrite=overwrite,
            progress=progress,
        )
    if quiet:
        return
    console.note(f"imported into {target}")
    whole = _multimodal(target)
    if whole is not None:
        console.note(f"the language model of a {whole}; its tensors for other modalities are not read")
    if _has_chat_template(target):
        console.note(f"chat: {command('gptkit chat', target)}")
    else:
        console.note(f'generate: {command("gptkit generate", target)} "Once upon a time"')
    console.note(f"fine-tune: {command('gptkit train finetune NEW_RUN --init', target)} --set data.path=TEXT")


def _multimodal(run: Path) -> str | None:
    """Return the type of the multimodal model that the run is the language model of."""
    from gptkit.runs.directory import RunDirectory

    result: str | None = RunDirectory(run).read_provenance().get("imported", {}).get("language_model_of")
    return result


def _has_chat_template(run: Path) -> bool:
    from gptkit.runs.directory import RunDirectory
    from gptkit.runs.tokenizers import load_tokenizer

    directory = RunDirectory(run)
    return load_tokenizer(directory.read_spec(), directory).chat_template is not None


@contextlib.contextmanager
def transfer(what: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show progress in bytes: a bar in a terminal, else plain lines. Yield the function that updates it, or None."""
    screen = console.stderr()
    if quiet:
        yield None
        return
    if not screen.is_terminal:
        with working(what) as report:
            yield report
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
