"""`gptkit runs`: list the runs in a directory. Only the list is printed on stdout."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import Json, Quiet
from gptkit.core.activity import working
from gptkit.core.commands import command

if TYPE_CHECKING:
    from rich.table import Table

    from gptkit.runs.listing import ListedRun

__all__ = ["runs"]

_PATH_WIDTH = 20
"""Longer paths are folded in the table."""


def runs(
    directory: Annotated[Path, typer.Argument(metavar="[DIRECTORY]", help="The directory of the runs.")] = Path("runs"),
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write a page with curves (.html) or the data (.json).",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List runs with their losses, and what their specs differ in.

    Runs with the lowest validation loss are first. -o writes a page with the curves of all runs in common charts, one file
    that needs no network.

    For example: gptkit runs runs -o runs.html
    """
    with working(f"reading {directory}", quiet=quiet):
        from gptkit.pages.report import check_report, json_report, write_report
        from gptkit.runs.listing import list_runs
        from gptkit.runs.listing_page import listing_data, listing_page

        if output is not None:
            check_report(output)
        listed = list_runs(directory)
    if output is not None:
        write_report(
            output,
            html=lambda: listing_page(directory, listed),
            data=lambda: json_report("runs", {"directory": str(directory), "runs": listing_data(listed)}),
        )
        if not quiet:
            console.note(f"written: {output}")
    if as_json:
        console.out(json.dumps(listing_data(listed), indent=2, ensure_ascii=False))
        return
    if not listed:
        console.note(f"{directory} has no runs; train one: {command('gptkit train SPEC', directory / 'NAME')}")
        return
    _print(listed)


def _print(listed: list[ListedRun]) -> None:
    number = {"justify": "right"}
    columns: list[console.Column] = [
        ("run", {"style": "cyan", "overflow": "fold"}),
        ("step", number),
        ("loss", number),
        ("validation", number),
        ("lowest", number),
        ("bits/byte", number),
        ("tokens/s", number),
        ("changed", number),
    ]
    rows = [
        [
            str(run.path),
            # A run without metrics was not trained; an imported one has steps that nobody planned.
            f"{run.step:,}" + ("" if run.steps is None or run.changed is None else f"/{run.steps:,}"),
            *(_loss(value) for value in (run.last("loss"), run.last("validation_loss"), run.lowest("validation_loss"))),
            _loss(run.last("validation_bits_per_byte")),
            "–" if (speed := run.last("tokens_per_second")) is None else f"{speed:,.0f}",
            "–" if run.changed is None else _ago(time.time() - run.changed),
        ]
        for run in listed
    ]
    if _fits(console.table(columns, [[path[:_PATH_WIDTH], *values] for path, *values in rows])):
        console.stdout().print(console.table(columns, rows))
    else:
        titles = [column if isinstance(column, str) else column[0] for column in columns]
        for path, *values in rows:
            console.heading(path)
            lines = list(zip(titles[1:], values, strict=True))
            console.stdout().print(console.table([("", {"style": "dim"}), ""], lines, header=False))
    names = list(dict.fromkeys(name for run in listed for name in run.choices))
    if names:
        console.heading("Differences between the specs")
        _print_differences([run for run in listed if run.problem is None], names)
    for run in listed:
        if run.problem is not None:
            console.warn(f"{run.path}: its spec cannot be read: {run.problem}")


def _print_differences(listed: list[ListedRun], names: list[str]) -> None:
    """Print the fields that differ: a column for each if the terminal is wide enough, else a line for each value."""
    key = ("", {"style": "cyan", "overflow": "fold"})
    wide = console.table([key, *names], [[str(run.path), *(run.choices.get(name, "–") for name in names)] for run in listed])
    output = console.stdout()
    if _fits(wide):
        output.print(wide)
        return
    for name in names:
        output.print(name, style="bold")
        rows = [[f"  {run.path}", run.choices.get(name, "–")] for run in listed]
        output.print(console.table([key, ("", {"overflow": "fold"})], rows, header=False))


def _fits(table: Table) -> bool:
    """Return whether the terminal is wide enough for a table."""
    output = console.stdout()
    unlimited = output.options.update(max_width=100_000)  # else a table that is too wide measures the terminal's width
    return output.measure(table, options=unlimited).maximum <= output.width


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _ago(seconds: float) -> str:
    for limit, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= limit:
            return f"{seconds / limit:.0f} {unit} ago"
    return "now"
