"""`gptkit search`: search for the best values of several fields. The table is printed on stdout, progress on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.options import File, Jobs, Overrides, Quiet, chosen
from gptkit.core.activity import working
from gptkit.core.commands import quoted

if TYPE_CHECKING:
    from gptkit.experiments.search import Search

__all__ = ["search"]

_SHOWN = 10


def search(
    target: File,
    ranges: Annotated[
        list[str],
        typer.Option(
            "--range",
            "-r",
            metavar="PATH=RANGE",
            help="A varied field: LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP, or values A,B. Repeatable.",
            show_default=False,
        ),
    ],
    trials: Annotated[int, typer.Option("--trials", "-n", min=1, metavar="N", help="Number of proposed settings.")] = 20,
    seeds: Annotated[int, typer.Option("--seeds", min=1, metavar="N", help="Number of trainings of each setting.")] = 1,
    confirm: Annotated[
        int,
        typer.Option(
            "--confirm",
            min=0,
            metavar="N",
            help="Then compare the best setting with the spec, with N seeds that the search did not use.",
            show_default=False,
        ),
    ] = 0,
    overrides: Overrides = None,
    match: Annotated[
        str | None,
        typer.Option(
            "--match",
            metavar="QUANTITY",
            help="Make all settings equal to the spec in parameters, flops, cache or time, by their widths.",
            show_default=False,
        ),
    ] = None,
    sampler: Annotated[
        str, typer.Option("--sampler", metavar="NAME", help="How settings are proposed: tpe or random.")
    ] = "tpe",
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the proposals.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Directory; experiments/NAME-search by default.", show_default=False
        ),
    ] = None,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Search for the values with the lowest validation loss: each setting is proposed from the results of the earlier ones.

    Requires Optuna: pip install 'gptkit[search]'. Repeat the command to resume after Ctrl-C, or with more trials to
    continue: nothing is trained twice. The best of many settings is good partly by chance; --confirm trains it again, with
    new seeds.

    For example: gptkit search tiny --range training.optimizer.learning_rate=1e-4..1e-1:log --range model.n_layers=2..6
    """
    with working(f"reading {target}", quiet=quiet):
        import_torch()
        from gptkit.core.errors import GptkitError
        from gptkit.experiments.request import parse_values
        from gptkit.experiments.search import run_search
        from gptkit.experiments.search_spec import SearchSpec, parse_range
        from gptkit.files import validate_data

        parsed = [parse_range(text) for text in ranges]
        paths = [path for path, _ in parsed]
        for path in paths:
            if paths.count(path) > 1:
                raise GptkitError(f"--range {path} is given twice", hint="Write one range for each field.")
        data = {
            "base": target,
            "ranges": {path: each.model_dump() for path, each in parsed},
            "set": parse_values(chosen(overrides)),
            "trials": trials,
            "seeds": seeds,
            "match": match,
            "sampler": sampler,
            "seed": seed,
        }
        spec = validate_data(data, SearchSpec)
    _print(run_search(spec, output, confirm=confirm, jobs=jobs, note=console.notes(quiet)))


def _print(result: Search) -> None:
    from gptkit.reflect.snippets import flow

    paths = list(result.spec.ranges)
    number = {"justify": "right"}
    columns: list[console.Column] = [(path.rpartition(".")[2], {"style": "cyan", "overflow": "fold"}) for path in paths]
    columns += [(title, number) for title in (result.measure.title, "tokens/s", "parameters")]
    lines: list[list[Any]] = []
    for tried in result.tried[:_SHOWN]:
        row = tried.row
        assert row.measure is not None
        speed = "–" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}"
        cells = [flow(tried.point[path]) if path in tried.point else "(as in the spec)" for path in paths]
        lines.append([*cells, f"{row.measure.mean:.4f}", speed, f"{row.variant.parameters:,}"])
    console.stdout().print(console.table(columns, lines))
    for label, reason in result.failed.items():
        console.warn(f"{label}: {reason}")
    _conclude(result)
    console.note(f"report: {(result.confirmed or result.comparison).report}")


def _conclude(result: Search) -> None:
    from gptkit.experiments.effects import effects, sentence
    from gptkit.experiments.measures import measure_of
    from gptkit.reflect.snippets import flow

    best = result.best
    if best is None:
        console.warn("no setting has a result")
        return
    if not best.point:
        console.out("No setting is better than the spec as it is.")
        return
    options = " ".join(f"--set {quoted(f'{path}={flow(value)}')}" for path, value in best.point.items())
    console.out(f"The best setting: {options}")
    if result.confirmed is None:
        console.note("The best of many is good partly by chance: add --confirm 3 to train it and the spec with new seeds.")
        return
    experiment = result.confirmed.experiment
    measure = measure_of(experiment)
    for effect in effects(experiment, measure):
        console.out(sentence(effect, measure))
