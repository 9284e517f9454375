"""`gptkit drift`: compare a run with an external model, module by module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.options import Json, RunDirectory, Step
from gptkit.core.activity import working

if TYPE_CHECKING:
    from gptkit.runs.drift import Drift, Reading

__all__ = ["drift"]


def drift(
    run: RunDirectory,
    against: Annotated[
        Path,
        typer.Option(
            "--against", metavar="PATH", help="The external model, in any format that gptkit imports.", show_default=False
        ),
    ],
    n_tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="Number of tokens to compare.")] = 64,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", metavar="SHARE", min=0, help="Largest relative difference that is accepted."),
    ] = 1e-3,
    step: Step = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show the parts of all layers, not only of the first that differs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare a run with an external model, part by part, and report the first part that differs.

    Both models process the same tokens. The exit code is 1 if a part differs by more than the tolerance. Requires
    transformers.
    """
    with working(f"comparing {run} with {against}"):
        import_torch()
        from gptkit.runs.drift import measure_drift

        result = measure_drift(run, against, n_tokens=n_tokens, tolerance=tolerance, step=step)
    if as_json:
        parts = [{"part": r.part, "name": r.name, "external": r.external, "distance": r.distance} for r in result.readings]
        first = result.first.part if result.first else None
        console.out(
            json.dumps(
                {
                    "first": first,
                    "tensors": result.tensors,
                    "differences": result.differences,
                    "remark": result.remark,
                    "tolerance": tolerance,
                    "parts": parts,
                },
                indent=2,
            )
        )
    else:
        _print(result, every)
    if result.first:
        raise typer.Exit(1)


def _print(result: Drift, every: bool) -> None:
    from rich.text import Text

    rows = []
    for reading in result.readings if every else _shown(result):
        beyond = not reading.distance <= result.tolerance
        style = "bold red" if reading is result.first else "red" if beyond else ""
        mark = "first difference" if reading is result.first else ""
        rows.append([Text(text, style) for text in (reading.part, reading.name, reading.external, _number(reading), mark)])
    columns: list[console.Column] = ["module", "component", "transformers", ("distance", {"justify": "right"}), ""]
    console.stdout().print(console.table(columns, rows))
    console.out()
    if result.remark:
        console.out(result.remark)
    if result.first is None:
        worst = max(result.readings, key=lambda reading: reading.distance)
        console.out(
            f"no module differs by more than {result.tolerance:g}; largest difference: {_number(worst)}, in {worst.part}"
        )
        return
    console.out(f"{result.first.part} ({result.first.name}) is the first to differ, by {_number(result.first)}")
    for text in result.differences[:5]:
        console.out(f"the spec differs from config.json: {text}")
    for name in result.tensors[:5]:
        console.out(f"the values differ from those in the files: {name}")
    if not result.tensors and not result.differences:
        console.out("the spec and the weights equal those of the files; the computation of this module differs")


def _shown(result: Drift) -> Iterator[Reading]:
    """Yield the readings of whole layers, and of every module of the first layer that differs."""
    layer = result.first.part.split(".")[:2] if result.first else []
    for reading in result.readings:
        keys = reading.part.split(".")
        if len(keys) < 3 or keys[:2] == layer:
            yield reading


def _number(reading: Reading) -> str:
    return f"{reading.distance:.1e}"
