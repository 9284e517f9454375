"""`gptkit train`: train a model from a spec file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.failures import INTERRUPTED, follows
from gptkit.cli.options import FileOrRun, Overrides, Quiet, chosen, complete_runs
from gptkit.core.activity import working
from gptkit.core.commands import command
from gptkit.core.errors import GptkitError
from gptkit.core.paths import cut_name

if TYPE_CHECKING:
    from gptkit.runs.run import Run


def train(
    file: FileOrRun,
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="The run directory; runs/NAME of the spec by default.",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", "-r", help="Continue an existing run.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the run in the directory; it is kept until the new one has a checkpoint."),
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            metavar="SOURCE",
            help="Start from the weights of a run, a directory saved by transformers, a GGUF file or a safetensors file.",
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="With --init: load the tensors that fit, and initialize and list the others."),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train a model from scratch, or from existing weights (--init).

    Ctrl-C finishes the current step and saves a checkpoint. To resume, pass the run directory; more steps
    extend the run: gptkit train --resume runs/gpt --set training.steps=2000
    """
    # Of several processes started by torchrun, only the first one checks and reports.
    follower = follows()
    with working(f"reading {file}", quiet=quiet or follower):
        import_torch()
        from gptkit.training.allocator import set_allocators

        set_allocators()
        from gptkit.presets.catalog import shipped
        from gptkit.runs.directory import RunDirectory
        from gptkit.runs.opening import open_spec
        from gptkit.runs.train import train as train_spec

    if resume and overwrite:
        raise GptkitError("--resume and --overwrite are mutually exclusive", hint="Choose one of them.")
    given = chosen(overrides)
    if init is not None:
        given = [*given, f"training.init_from.path={json.dumps(str(init.expanduser().absolute()))}"]
    if partial:
        if init is None and (Path(file).is_dir() or open_spec(file, given).spec.training.init_from is None):
            raise GptkitError("--partial applies to initial weights, and none are given", hint="Add --init SOURCE.")
        given = [*given, "training.init_from.strict=false"]
    if Path(file).is_dir():
        run_directory = RunDirectory(file)
        run_directory.require_run()
        if directory is not None or not resume:
            hint = (
                f"Continue it: {command('gptkit train --resume', file)}. Start a new run from its weights: "
                f"{command('gptkit train', run_directory.spec, 'NEW_RUN', '--init', file)}."
            )
            raise GptkitError(f"{file} is a run, not a spec file", hint=hint)
        if init is not None:
            hint = f"Start a new run: {command('gptkit train', run_directory.spec, 'NEW_RUN', '--init', init)}."
            raise GptkitError(f"--init starts a new run, and {file} already has weights", hint=hint)
        run = train_spec(None, file, given, resume=True, progress=not quiet)
    else:
        if resume and directory is None and not Path(file).exists() and file not in shipped():
            raise GptkitError(f"{file}: run not found", hint="Pass a run directory, as created by gptkit train.")
        target = directory if directory is not None else Path("runs") / _slug(open_spec(file, given).spec.name)
        run_directory = RunDirectory(target)
        if not follower:
            run_directory.recover()
        if not follower and run_directory.holds_run and not resume and not overwrite and not run_directory.unstarted:
            resuming = command("gptkit train --resume", target)
            hint = f"Continue it: {resuming}. Replace it: --overwrite. Or choose another run directory."
            raise GptkitError(f"{target} already holds a run", hint=hint)
        if resume and not quiet and not follower and not run_directory.holds_run:
            console.note(f"{target} has no run to resume: training starts from {'scratch' if init is None else init}")
        run = train_spec(file, target, given, resume=resume, overwrite=overwrite, progress=not quiet)
    if not follower:
        _finish(run, quiet=quiet)


def _finish(run: Run, *, quiet: bool) -> None:
    if not run.finished:
        if quiet:
            # Otherwise the progress display has printed the message.
            console.note(f"stopped after step {run.step}; continue with: {command('gptkit train --resume', run.directory)}")
        raise typer.Exit(INTERRUPTED)
    if quiet:
        return
    from gptkit.runs.directory import RunDirectory

    directory = RunDirectory(run.directory)
    if directory.plot.is_file():
        console.note(f"curves: {directory.page}")
    prompt = run.spec.training.sample_prompt or "A prompt"
    console.note(f"generate text: {command('gptkit generate', run.directory, prompt)}")


def _slug(name: str) -> str:
    """Convert a spec's name to a directory name."""
    return cut_name(re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run")
