"""`gptkit drift`: compare a run with the external model that it was imported from, or should equal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import Json, RunFolder

if TYPE_CHECKING:
    from gptkit.runs.drift import Drift, Reading

__all__ = ["drift"]


def drift(
    run: RunFolder,
    against: Annotated[
        Path,
        typer.Option(
            "--against", metavar="PATH", help="The external model, in any format that gptkit imports.", show_default=False
        ),
    ],
    n_tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="The number of tokens.")] = 64,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", metavar="SHARE", min=0, help="The relative difference that counts as equal."),
    ] = 1e-3,
    step: Annotated[
        int | None,
        typer.Option("--step", metavar="N", help="The checkpoint of this step; the newest by default.", show_default=False),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show the parts of all layers, not only of the first that differs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare a run with an external model, part by part, and name the first part that differs.

    The same tokens go through both. Exits with 1 if a part differs by more than the tolerance. Needs transformers.
    """
    from gptkit.runs.drift import measure_drift

    found = measure_drift(run, against, n_tokens=n_tokens, tolerance=tolerance, step=step)
    if as_json:
        parts = [{"part": r.part, "name": r.name, "external": r.external, "distance": r.distance} for r in found.readings]
        first = found.first.part if found.first else None
        console.out(
            json.dumps(
                {
                    "first": first,
                    "tensors": found.tensors,
                    "differences": found.differences,
                    "tolerance": tolerance,
                    "parts": parts,
                },
                indent=2,
            )
        )
    else:
        _print(found, every)
    if found.first:
        raise typer.Exit(1)


def _print(found: Drift, every: bool) -> None:
    from rich.text import Text

    rows = []
    for reading in found.readings if every else _shown(found):
        beyond = not reading.distance <= found.tolerance
        style = "bold red" if reading is found.first else "red" if beyond else ""
        mark = "first to differ" if reading is found.first else ""
        rows.append([Text(text, style) for text in (reading.part, reading.name, reading.external, _number(reading), mark)])
    columns: list[console.Column] = ["part", "component", "external", ("distance", {"justify": "right"}), ""]
    console.stdout().print(console.table(columns, rows))
    console.out()
    if found.first is None:
        worst = max(found.readings, key=lambda reading: reading.distance)
        console.out(f"no part differs by more than {found.tolerance:g}; most of all {worst.part}, by {_number(worst)}")
        return
    console.out(f"{found.first.part} ({found.first.name}) is the first to differ, by {_number(found.first)}")
    for text in found.differences[:5]:
        console.out(f"the spec differs from config.json: {text}")
    for name in found.tensors[:5]:
        console.out(f"the numbers differ from those in the files: {name}")
    if not found.tensors and not found.differences:
        console.out("its numbers and the spec are those of the files: it computes something else")


def _shown(found: Drift) -> Iterator[Reading]:
    """Whole layers, and of the one that differs first its parts."""
    place = found.first.part.split(".")[:2] if found.first else []
    for reading in found.readings:
        keys = reading.part.split(".")
        if len(keys) < 3 or keys[:2] == place:
            yield reading


def _number(reading: Reading) -> str:
    return f"{reading.distance:.1e}"
