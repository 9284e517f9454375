"""`gptkit demo`: a small GPT learns to write while you watch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.failures import INTERRUPTED

if TYPE_CHECKING:
    from gptkit.runs.run import Run
    from gptkit.runs.spec import ExperimentSpec

SPEC = "tiny"


def demo(
    folder: Annotated[
        Path,
        typer.Option("--folder", metavar="RUN", help="Where to train; the next free number is added where there is a run."),
    ] = Path("runs/demo"),
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, metavar="N", help="Training steps, in place of the spec's.", show_default=False),
    ] = None,
) -> None:
    """Train a small GPT on real text for two or three minutes, and let it write.

    A demo that was interrupted goes on where it stopped; a finished one, and any other run, is left alone.
    """
    from gptkit.runs.opening import open_spec
    from gptkit.runs.train import train

    spec = open_spec(SPEC, [] if steps is None else [f"training.steps={steps}"]).spec
    target, resuming = _place(folder, spec)
    if resuming:
        console.note(f"going on with the demo in {target}")
    else:
        console.note(f"training the spec {SPEC!r} (gptkit show {SPEC}) on the built-in text, into {target}")
    run = train(spec, target, resume=resuming)
    if not run.finished:
        console.note("gptkit demo does so too", style="dim")
        raise typer.Exit(INTERRUPTED)
    _tell(run)


def _place(folder: Path, spec: ExperimentSpec) -> tuple[Path, bool]:
    """The first of demo, demo-2, demo-3 … that is free, or holds this very demo unfinished (then the second is true)."""
    from gptkit.checkpoint.store import CheckpointStore
    from gptkit.core.errors import CheckpointError, GptkitError
    from gptkit.runs.folder import RunFolder

    number = 1
    while True:
        there = RunFolder(folder if number == 1 else folder.with_name(f"{folder.name}-{number}"))
        number += 1
        there.recover()
        if there.holds_run:
            try:
                same = there.read_spec().sha256 == spec.sha256
            except GptkitError:
                continue
            reached = CheckpointStore(there.checkpoints).steps()
            if same and (not reached or reached[-1] < spec.training.steps):
                return there.path, True
            continue
        try:
            there.require_free()
        except CheckpointError:
            continue
        return there.path, False


def _tell(run: Run) -> None:
    """What came out: text before and after, the losses, and where to go from here."""
    from gptkit.runs.folder import RunFolder
    from gptkit.training.records import read_metrics

    folder = RunFolder(run.folder)
    screen = console.stdout()
    samples = _samples(folder.samples)
    if len(samples) > 1:
        for title, text in (("Before training, it wrote", samples[0]), ("Now it writes", samples[-1])):
            console.heading(title)
            screen.print(console.printable(text))
    losses = [line["validation_loss"] for line in read_metrics(folder.metrics) if "validation_loss" in line]
    console.heading("What happened")
    rows = []
    if losses:
        rows.append(["loss on text it never saw", f"{losses[0]:.3f} → {losses[-1]:.3f}"])
    rows += [["losses over time", str(folder.plot)], ["the run", str(run.folder)]]
    screen.print(console.table([("", {"style": "cyan"}), ("", {"overflow": "fold"})], rows, header=False))
    console.heading("What to try next")
    nexts = [
        [f'gptkit generate {run.folder} "{run.spec.training.sample_prompt}"', "let it write more"],
        ["gptkit new my.yaml", "a spec of your own to change"],
        ["gptkit train my.yaml", "and to train"],
        ["gptkit components", "what there is to choose from"],
    ]
    screen.print(console.table([("", {"style": "cyan", "overflow": "fold"}), ""], nexts, header=False))


def _samples(path: Path) -> list[str]:
    """The texts in a run's samples.txt."""
    if not path.is_file():
        return []
    samples: list[list[str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("──── step ") and line.endswith(" ────"):
            samples.append([])
        elif samples:
            samples[-1].append(line)
    return ["\n".join(lines).strip() for lines in samples]
