"""`gptkit data`: show tokens; prepare those of a corpus before a training, verify and describe them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.data_view import tokens, windows
from gptkit.cli.failures import INTERRUPTED, Command, Commands
from gptkit.cli.options import File, Json, Overrides, Quiet, complete_specs
from gptkit.core.activity import Report, working
from gptkit.core.commands import command
from gptkit.core.errors import DataError, FileError
from gptkit.core.yaml import one_line_yaml

if TYPE_CHECKING:
    from gptkit.data.preparation import Progress
    from gptkit.data.prepared import Prepared
    from gptkit.runs.spec import ExperimentSpec

app = typer.Typer(
    cls=Commands,
    help="Show the tokens of texts and data windows; prepare those of a corpus before a training, verify and describe them.",
    no_args_is_help=True,
)

_WINDOW = 1024
"""Length of data windows in the report on a directory."""

Target = Annotated[
    str,
    typer.Argument(
        metavar="DIR|SPEC", help="A directory of tokens, a run, or a spec file or preset.", autocompletion=complete_specs
    ),
]


@app.command(cls=Command)
def prepare(
    spec: File,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="The directory of the tokens; below prepared/ by default.", show_default=False
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "-w", min=1, metavar="N", help="Processes; one per CPU core by default.", show_default=False
        ),
    ] = None,
    shard_tokens: Annotated[
        int | None,
        typer.Option(
            "--shard-tokens", min=1, metavar="N", help="Tokens of a shard; 100 million by default.", show_default=False
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Tokenize the corpus of a spec in parallel, into shards with checksums.

    Ctrl-C, or an error, keeps what is done: the same command continues. The result is the same with any number of processes.
    `gptkit train SPEC` finds the tokens in the default directory and uses them where they are.
    """
    from gptkit.data.preparation import SHARD_TOKENS
    from gptkit.runs.corpus import prepare_corpus, prepared_directory
    from gptkit.runs.opening import open_spec

    opened = open_spec(spec, overrides or ())
    standard = prepared_directory(opened)
    directory = out or standard
    started = time.monotonic()
    try:
        with working(f"preparing {directory}", quiet=quiet) as report:
            prepared = prepare_corpus(
                opened,
                directory,
                workers=workers,
                shard_tokens=shard_tokens or SHARD_TOKENS,
                progress=_Speed(report).show,
            )
    except KeyboardInterrupt:
        console.note(f"interrupted; {_kept(directory)}")
        raise typer.Exit(INTERRUPTED) from None
    except (DataError, FileError):
        kept = _kept(directory)
        if kept != _NOTHING:
            console.note(kept)
        raise
    if quiet:
        console.out(str(directory))
        return
    n_tokens = prepared.train_counts.tokens + prepared.validation_counts.tokens
    seconds = time.monotonic() - started
    console.out(
        f"{directory}: {n_tokens:,} tokens of {prepared.train_counts.documents + prepared.validation_counts.documents:,} "
        f"documents in {console.plural(len(prepared.shards), 'shard')}, {seconds:.0f} s"
    )
    use = (
        command("gptkit train", spec, *_set(overrides))
        if out is None
        # A relative path in a spec counts from its directory.
        else f"data: {one_line_yaml({'name': 'prepared', 'path': str(directory.absolute())})} in a spec"
    )
    console.note(f"next: {use}", style="dim")


@app.command(cls=Command)
def check(target: Target, overrides: Overrides = None, quiet: Quiet = False) -> None:
    """Verify the checksum of every shard; the exit code is 1 if one is damaged."""
    from gptkit.data.prepared import damaged_files

    prepared = _find(target, overrides)
    if not prepared.shards and prepared.index.format < 3:
        raise DataError(
            f"{prepared.directory} has no checksums: an earlier version wrote it",
            hint="Prepare the corpus again; sizes are verified whenever the tokens are opened.",
        )
    with working(f"reading {prepared.directory}", quiet=quiet) as report:
        damaged = damaged_files(prepared, report)
    for name, reason in damaged:
        console.out(f"{prepared.directory / name}: damaged: {reason}")
    if damaged:
        console.note("copy these files again, or delete the directory and prepare the corpus again")
        raise typer.Exit(1)
    console.out(f"{prepared.directory}: {console.plural(len(prepared.shards), 'shard')}, all checksums are correct")


@app.command(cls=Command)
def show(
    target: Target,
    overrides: Overrides = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            min=1,
            metavar="T",
            help="Data window of the report on packing; the spec's, or 1024.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe prepared tokens: sizes, shards, longest documents, what packing them would waste, and an epoch's steps."""
    prepared = _find(target, overrides)
    with working(f"reading {prepared.directory}"):
        from gptkit.data.description import describe

        spec = _spec(target, overrides)
        content = describe(prepared, window or (_WINDOW if spec is None else spec.window))
        content["epoch"] = None if spec is None else _epoch(prepared, spec)
    if as_json:
        console.out(json.dumps(content, indent=2))
        return
    rows = [
        [label, *(_cell(content[side].get(key), key) for side in ("train", "validation"))] for key, label in _ROWS.items()
    ]
    columns: list[console.Column] = [("", {"style": "cyan", "no_wrap": True})]
    columns += [(side, {"justify": "right"}) for side in ("train", "validation")]
    console.stdout().print(console.table(columns, rows))
    packed = content["packing"]
    if packed is not None:
        console.out(
            f"packed into windows of {packed['window']:,}: {packed['windows']:,} windows, {packed['padding']:.2%} padding, "
            f"{console.plural(packed['documents_cut'], 'document')} longer than a window"
        )
    epoch = content["epoch"]
    if epoch is not None:
        console.out(
            f"an epoch: {epoch['steps']:,.1f} steps of {epoch['batch_size']} × {epoch['window']:,} tokens; "
            f"training.steps = {epoch['training_steps']:,} is {epoch['epochs']:.3g} epochs"
        )
    for document in content["longest"]:
        text = f": {document['text']}" if document["text"] else ""
        console.out(f"{document['tokens']:,} tokens, training document {document['document']:,}{text}")


app.command(cls=Command)(tokens)
app.command(cls=Command)(windows)

_ROWS = {
    "tokens": "tokens",
    "documents": "documents",
    "shards": "shards",
    "bytes": "bytes of text",
    "bytes_per_token": "bytes per token",
    "masked": "masked",
    "mean_document": "tokens per document",
    "longest_document": "longest document",
}
_NOTHING = "nothing is kept"


def _cell(value: Any, key: str) -> str:
    if value is None:
        return "none"
    if key == "masked":
        return f"{value:.1%}"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def _find(target: str, overrides: list[str] | None) -> Prepared:
    """Return the tokens in a directory, of a run, or prepared for a spec."""
    from gptkit.data.prepared import open_prepared

    directory = Path(target)
    if directory.is_dir():
        inner = directory / "data"
        return open_prepared(
            inner if not (directory / "meta.json").exists() and (inner / "meta.json").exists() else directory
        )
    from gptkit.runs.corpus import find_prepared
    from gptkit.runs.opening import open_spec

    prepared = find_prepared(open_spec(target, overrides or ()))
    if prepared is None:
        hint = f"Prepare it: {command('gptkit data prepare', target, *_set(overrides))}"
        raise DataError(f"the corpus of {target} is not prepared", hint=hint)
    return prepared


def _set(overrides: list[str] | None) -> list[str]:
    """Return overrides as words of a command."""
    return [word for text in overrides or () for word in ("--set", text)]


def _spec(target: str, overrides: list[str] | None) -> ExperimentSpec | None:
    """Return the spec of a spec file or run; None for a directory of tokens."""
    from gptkit.runs.opening import open_spec

    path = Path(target)
    if path.is_dir():
        path = path / "spec.yaml"
        if not path.is_file():
            return None
        target = str(path)
    return open_spec(target, overrides or ()).spec


def _epoch(prepared: Prepared, spec: ExperimentSpec) -> dict[str, Any] | None:
    """Return how many steps a pass over the training tokens takes; None if stages change the size of a step."""
    training = spec.training
    if any(stage.batch_size or stage.window for stage in training.stages):
        return None
    steps = len(prepared.train.tokens) / (training.batch_size * spec.window)
    return {
        "batch_size": training.batch_size,
        "window": spec.window,
        "steps": steps,
        "training_steps": training.steps,
        "epochs": training.steps / steps,
    }


def _kept(directory: Path) -> str:
    """Return what remains of an interrupted preparation, and how to continue it."""
    from gptkit.core.sealed import unseal
    from gptkit.data.journal import work_directory
    from gptkit.runs.corpus import kept_tokenizers

    work = work_directory(directory)
    try:
        content = unseal((work / "journal.json").read_text(encoding="utf-8"))
        n_tokens = sum(content[side]["counts"]["tokens"] for side in content["sides"])
    except (OSError, ValueError, KeyError, TypeError):
        if not kept_tokenizers(directory):
            return _NOTHING
        return f"the trained tokenizer is kept beside {directory}; repeat the command to continue with it"
    return f"{n_tokens:,} tokens are kept in {work}; repeat the command to continue there"


class _Speed:
    """Formats the progress of a preparation, with its speed and the remaining time."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._first: tuple[float, Progress] | None = None

    def show(self, progress: Progress) -> None:
        """Report the progress."""
        if not progress.total:
            self._report(0, 0, f"reading the corpus, {progress.done:,} characters")
            return
        now = time.monotonic()
        if self._first is None:
            self._first = now, progress
        begun, first = self._first
        seconds, done = now - begun, progress.done - first.done
        detail = f"{progress.tokens:,} tokens"
        if seconds >= 1 and done > 0:
            speed = (progress.tokens - first.tokens) / seconds
            remaining = (progress.total - progress.done) * seconds / done
            detail += f", {speed:,.0f} tokens/s, {_duration(remaining)} left"
        self._report(progress.done, progress.total, detail)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
