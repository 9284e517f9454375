"""`gptkit demo`: train a small GPT and generate text with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.failures import INTERRUPTED
from gptkit.core.activity import working
from gptkit.core.commands import command

if TYPE_CHECKING:
    from gptkit.runs.run import Run
    from gptkit.runs.spec import ExperimentSpec

SPEC = "tiny"


def demo(
    directory: Annotated[
        Path,
        typer.Option(
            "--directory", metavar="RUN", help="The run directory; a number is appended if it already holds a run."
        ),
    ] = Path("runs/demo"),
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, metavar="N", help="Training steps; overrides the spec.", show_default=False),
    ] = None,
) -> None:
    """Train a small GPT on real text for two or three minutes, and generate text.

    An interrupted demo is resumed; finished demos and other runs are never changed.
    """
    with working("preparing the demo"):
        import_torch()
        from gptkit.runs.opening import open_spec
        from gptkit.runs.train import train

    spec = open_spec(SPEC, [] if steps is None else [f"training.steps={steps}"]).spec
    target, resuming = _place(directory, spec)
    if resuming:
        console.note(f"resuming the demo in {target}")
    else:
        console.note(f"training the spec {SPEC!r} (gptkit show {SPEC}) on the built-in text, into {target}")
    run = train(spec, target, resume=resuming)
    if not run.finished:
        console.note("or with: gptkit demo", style="dim")
        raise typer.Exit(INTERRUPTED)
    _report(run)


def _place(directory: Path, spec: ExperimentSpec) -> tuple[Path, bool]:
    """Return the first of demo, demo-2, demo-3 … that is free, or holds an unfinished run of the same spec (then True)."""
    from gptkit.checkpoint.store import CheckpointStore
    from gptkit.core.errors import CheckpointError, GptkitError
    from gptkit.runs.directory import RunDirectory

    number = 1
    while True:
        run_directory = RunDirectory(directory if number == 1 else directory.with_name(f"{directory.name}-{number}"))
        number += 1
        run_directory.recover()
        if run_directory.holds_run:
            try:
                same = run_directory.read_spec().sha256 == spec.sha256
            except GptkitError:
                continue
            steps = CheckpointStore(run_directory.checkpoints).steps()
            if same and (not steps or steps[-1] < spec.training.steps):
                return run_directory.path, True
            continue
        try:
            run_directory.require_free()
        except CheckpointError:
            continue
        return run_directory.path, False


def _report(run: Run) -> None:
    """Print samples from before and after training, the losses, and suggested commands."""
    from gptkit.runs.directory import RunDirectory
    from gptkit.training.records import read_metrics

    directory = RunDirectory(run.directory)
    screen = console.stdout()
    samples = _samples(directory.samples)
    if len(samples) > 1:
        for title, text in (("Sample before training", samples[0]), ("Sample after training", samples[-1])):
            console.heading(title)
            screen.print(console.printable(text))
    losses = [line["validation_loss"] for line in read_metrics(directory.metrics) if "validation_loss" in line]
    console.heading("Results")
    rows = []
    if losses:
        rows.append(["validation loss", f"{losses[0]:.3f} → {losses[-1]:.3f}"])
    rows += [["loss plot", str(directory.plot)], ["run", str(run.directory)]]
    screen.print(console.table([("", {"style": "cyan"}), ("", {"overflow": "fold"})], rows, header=False))
    console.heading("Next steps")
    commands = [
        [command("gptkit generate", run.directory, run.spec.training.sample_prompt), "generate more text"],
        ["gptkit new my.yaml", "write a spec to edit"],
        ["gptkit train my.yaml", "train it"],
        ["gptkit components", "list the available components"],
    ]
    screen.print(console.table([("", {"style": "cyan", "overflow": "fold"}), ""], commands, header=False))


def _samples(path: Path) -> list[str]:
    """Return the samples in a run's samples.txt."""
    if not path.is_file():
        return []
    samples: list[list[str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("──── step ") and line.endswith(" ────"):
            samples.append([])
        elif samples:
            samples[-1].append(line)
    return ["\n".join(lines).strip() for lines in samples]
