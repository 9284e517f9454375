"""`gptkit train`: a spec file becomes a run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.failures import INTERRUPTED
from gptkit.cli.options import FileOrRun, Overrides, chosen, complete_runs
from gptkit.core.errors import GptkitError

if TYPE_CHECKING:
    from gptkit.runs.run import Run


def train(
    file: FileOrRun,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="The folder to train into. By default runs/NAME, NAME being the spec's.",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", "-r", help="Go on with the run that is in the folder.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the run in the directory; it is kept until the new one has a checkpoint."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Train a model.

    Ctrl-C finishes the step, saves, and says how to go on. To resume, the run alone will do; a higher number of steps
    makes it go on for longer: gptkit train --resume runs/gpt --set training.steps=2000
    """
    from gptkit.runs.folder import RunFolder
    from gptkit.runs.opening import open_spec
    from gptkit.runs.train import train as train_spec

    if resume and overwrite:
        raise GptkitError("--resume and --overwrite contradict each other", hint="Choose one of them.")
    given = chosen(overrides)
    # Of several processes that torchrun started, the first one checks and reports.
    follows = os.environ.get("RANK", "0") != "0"
    if Path(file).is_dir():
        there = RunFolder(file)
        there.require_run()
        if folder is not None or not resume:
            hint = f"Go on with it: gptkit train --resume {file}. Train anew: gptkit train {there.spec} FOLDER."
            raise GptkitError(f"{file} is a run, not a spec file", hint=hint)
        run = train_spec(None, file, given, resume=True, progress=not quiet)
    else:
        target = folder if folder is not None else Path("runs") / _slug(open_spec(file, given).spec.name)
        there = RunFolder(target)
        if not follows:
            there.recover()
        if not follows and there.holds_run and not resume and not overwrite and not there.unstarted:
            hint = f"Go on with it: gptkit train --resume {target}. Train anew in its place: --overwrite. Or name another."
            raise GptkitError(f"{target} already holds a run", hint=hint)
        run = train_spec(file, target, given, resume=resume, overwrite=overwrite, progress=not quiet)
    if not follows:
        _finish(run, quiet=quiet)


def _finish(run: Run, *, quiet: bool) -> None:
    if not run.finished:
        if quiet:
            # Otherwise the progress has said so.
            console.note(f"stopped after step {run.step}; go on with: gptkit train --resume {run.folder}")
        raise typer.Exit(INTERRUPTED)
    from gptkit.runs.folder import RunFolder

    folder = RunFolder(run.folder)
    if folder.plot.is_file():
        console.note(f"the losses over time: {folder.plot}")
    console.note(f'let it write: gptkit generate {run.folder} "{run.spec.training.sample_prompt}"')


def _slug(name: str) -> str:
    """A spec's name as a folder's."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
