"""`gptkit scaling`: train a ladder of sizes, fit a power law, and predict a larger size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.options import File, Jobs, Json, Overrides, Quiet, chosen
from gptkit.core.activity import working

if TYPE_CHECKING:
    from gptkit.experiments.scaling import Point, Scaling

__all__ = ["scaling"]


def scaling(
    target: File,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="WIDTH[xLAYERS],...",
            help="The ladder, as in 64x2,96x3,128x4; by default widths of 1/4, 3/8, 1/2 and 3/4 of the predicted one.",
            show_default=False,
        ),
    ] = None,
    predict: Annotated[
        str | None,
        typer.Option(
            "--predict",
            metavar="WIDTH[xLAYERS]",
            help="The predicted size; that of the spec by default.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Also train the predicted size, and compare it with the prediction.")
    ] = False,
    overrides: Overrides = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="N", help="Number of seeds, or the seeds: 0,1,5.")] = "3",
    by: Annotated[
        str, typer.Option("--by", metavar="MEASURE", help="What the size is: parameters, or flops (per token).")
    ] = "parameters",
    floor: Annotated[
        bool | None,
        typer.Option(
            "--floor/--no-floor",
            help="Fit E, the loss of an infinite size, or assume 0; by default E is fitted with four sizes or more.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Directory; experiments/NAME-scaling by default.", show_default=False
        ),
    ] = None,
    jobs: Jobs = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a ladder of sizes, fit loss = E + A · N^-α to it, and predict a larger size.

    All sizes are trained on the same tokens in the same order. Repeat the command to resume after Ctrl-C, or to add sizes or
    seeds: finished trainings are kept. The report is DIR/scaling.html.

    For example: gptkit scaling tiny --seeds 2 --check
    """
    with working(f"reading {target}", quiet=quiet):
        import_torch()
        from gptkit.core.errors import GptkitError
        from gptkit.experiments.ladder import scaling as run
        from gptkit.experiments.request import parse_seeds, parse_values

        if by not in ("parameters", "flops"):
            raise GptkitError(f"--by {by}: unknown measure", hint="Write --by parameters, or --by flops.")
        changes = parse_values(chosen(overrides))
        ladder = [_size(text, "--sizes") for text in sizes.split(",")] if sizes else []
        wanted = None if predict is None else _size(predict, "--predict")
        parsed = parse_seeds(seeds)
    result, page = run(
        target,
        changes=changes,
        sizes=ladder,
        target=wanted,
        check=check,
        seeds=parsed,
        by="flops" if by == "flops" else "parameters",
        floor=floor,
        directory=output,
        jobs=jobs,
        note=console.notes(quiet),
    )
    if as_json:
        from gptkit.experiments.scaling_report import scaling_data

        data = scaling_data(result)
        wanted_keys = ("name", "command", "unit", "law", "exponent_interval", "floor_interval", "rows", "prediction")
        backtest = None if result.backtest is None else dataclasses.asdict(result.backtest)
        console.out(json.dumps({**{key: data[key] for key in wanted_keys}, "backtest": backtest}, indent=2))
        return
    _print(result)
    console.note(f"report: {page}")


def _print(result: Scaling) -> None:
    from gptkit.experiments.scaling_report import statements

    number: dict[str, Any] = {"justify": "right"}
    columns: list[console.Column] = [("size", {"style": "cyan"})]
    columns += [(title, number) for title in ("parameters", "FLOPs/token", "seeds", "loss", "law")]
    rows = [_cells(point, result) for point in (*result.ladder, result.target)]
    console.stdout().print(console.table(columns, rows))
    for text in statements(result):
        console.out(text)
    for label, reason in result.omitted.items():
        console.warn(f"{label}: {reason}")


def _cells(point: Point, result: Scaling) -> list[str]:
    loss = "–" if point.mean is None else f"{point.mean:.4f}"
    name = point.label + (" (predicted)" if point is result.target else "")
    law = f"{result.fit.law(point.x):.4f}"
    return [name, f"{point.parameters:,}", f"{point.flops_per_token:.4g}", str(len(point.losses)), loss, law]


def _size(text: str, option: str) -> dict[str, Any]:
    """Parse ``128x4``, width and layers, or ``128``, the width alone."""
    from gptkit.core.errors import GptkitError

    width, times, layers = text.strip().partition("x")
    numbers = [width, layers] if times else [width]
    if not all(each.isascii() and each.isdecimal() and int(each) > 0 for each in numbers):
        raise GptkitError(f"{option} {text}: expected WIDTH or WIDTHxLAYERS", hint=f"Write {option} 64x2 or {option} 64.")
    return {"model.d_model": int(width), **({"model.n_layers": int(layers)} if times else {})}
