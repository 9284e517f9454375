"""`gptkit compare`: train variants of a spec and compare them. The table is printed on stdout, progress on stderr."""

from __future__ import annotations

import os
import shlex
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.options import Jobs, Quiet, complete_specs
from gptkit.core.activity import working
from gptkit.core.errors import GptkitError

if TYPE_CHECKING:
    from gptkit.experiments.comparison import Comparison
    from gptkit.experiments.request import ComparisonSpec
    from gptkit.experiments.results import Experiment, Variant

__all__ = ["compare"]


def compare(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="The spec file that is varied, several spec files, or an experiment file.",
            autocompletion=complete_specs,
            show_default=False,
        ),
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            "-v",
            metavar="PATH=A,B",
            help="Compare values of a field, for example model.position=learned,rotary. Repeatable: every combination.",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", metavar="PATH=VALUE", help="Change a field in all variants. Repeatable.", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="N", help="Number of seeds, 3 by default, or the seeds: 0,1,5.", show_default=False),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(
            "--match",
            metavar="QUANTITY",
            help="Make all variants equal to the base in parameters, flops, cache or time, by their widths.",
            show_default=False,
        ),
    ] = None,
    learning_rates: Annotated[
        str | None,
        typer.Option(
            "--learning-rates", metavar="A,B", help="Train each variant with each of these rates.", show_default=False
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="WxL,...",
            help="Compare at several sizes, width times layers: 128x4,256x6.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Directory; experiments/NAME by default.", show_default=False),
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Skip combinations that are invalid, instead of refusing all.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Train trials again that failed.")] = False,
    jobs: Jobs = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="K/N", help="Train the K-th of N parts: a job of an array.", show_default=False),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train variants of a spec on the same data in the same order, and compare them over several seeds.

    Finished trials are never trained again: repeat the command to resume after Ctrl-C or a crash, with more values or seeds
    to extend the experiment. A trial that fails is reported, and the others continue. On several machines that share the
    directory, give each a part (--only 2/8), or start the command with torchrun. With an experiment file, --vary and --set
    add to those of the file, or replace the values of the same field, and other options replace what the file has.

    For example: gptkit compare tiny --vary model.position=none,learned,rotary --seeds 3
    """
    with working(f"reading {files[0]}", quiet=quiet):
        import_torch()
        from gptkit.experiments.comparison import command_of, default_directory, run_request
        from gptkit.experiments.request import parse_part

        options = {"seeds": seeds, "match": match, "learning_rates": learning_rates, "sizes": sizes}
        request, described = _request(files, vary or [], overrides or [], skip_invalid, options)
        target = output if output is not None else default_directory(request)
        command = command_of(request, target)
        if described:
            command = _repeated(files[0], vary or [], overrides or [], skip_invalid, options, target)
        part = _torchrun_part() if only is None else parse_part(only)
    result = run_request(
        request,
        target,
        command,
        jobs=jobs,
        part=part,
        retry_failed=retry,
        note=console.notes(quiet),
    )
    _print(result)


def _request(
    files: list[str], vary: list[str], overrides: list[str], skip_invalid: bool, options: dict[str, str | None]
) -> tuple[ComparisonSpec, bool]:
    """Return the request, and whether it is that of an experiment file."""
    from gptkit.core.errors import GptkitError
    from gptkit.experiments.request import (
        ComparisonSpec,
        is_request,
        parse_axis,
        parse_numbers,
        parse_seeds,
        parse_size,
        parse_values,
        read_request,
    )
    from gptkit.files import validate_data

    axes = [parse_axis(text) for text in vary]
    for path, _ in axes:
        if [each for each, _ in axes].count(path) > 1:
            raise GptkitError(f"--vary {path} is given twice", hint="Write all values in one option, separated by commas.")
    given: dict[str, Any] = {"vary": dict(axes)} if axes else {}
    if overrides:
        given["set"] = parse_values(overrides)
    if skip_invalid:
        given["skip_invalid"] = True
    if options["seeds"] is not None:
        given["seeds"] = parse_seeds(options["seeds"])
    if options["match"] is not None:
        given["match"] = options["match"]
    if options["learning_rates"] is not None:
        given["learning_rates"] = parse_numbers(options["learning_rates"], "--learning-rates")
    if options["sizes"] is not None:
        given["sizes"] = {text.strip(): parse_size(text) for text in options["sizes"].split(",")}
    if len(files) == 1 and is_request(files[0]):
        request = read_request(files[0])
        data = request.model_dump(mode="json")
        given |= {name: {**data[name], **given[name]} for name in ("vary", "set") if name in given}
        return validate_data({**data, **given}, ComparisonSpec), True
    subject = {"base": files[0]} if len(files) == 1 else {"specs": files}
    return validate_data({**subject, **given}, ComparisonSpec), False


def _repeated(
    file: str, vary: list[str], overrides: list[str], skip_invalid: bool, options: dict[str, str | None], target: Path
) -> str:
    """Return the command that repeats an experiment of a file."""
    words = ["gptkit", "compare", file]
    words += [word for text in vary for word in ("--vary", text)] + [word for text in overrides for word in ("--set", text)]
    for name, value in options.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}", value]
    return shlex.join([*words, *(["--skip-invalid"] if skip_invalid else []), "-o", str(target)])


def _torchrun_part() -> tuple[int, int]:
    """Return the part of a process that torchrun started; all trials without torchrun."""
    return int(os.environ.get("RANK", "0")) + 1, int(os.environ.get("WORLD_SIZE", "1"))


def _print(result: Comparison) -> None:
    from gptkit.experiments.effects import effects, sentence
    from gptkit.experiments.measures import measure_of
    from gptkit.experiments.statistics import LEVEL

    experiment = result.experiment
    number = {"justify": "right"}
    header, names = _names(experiment)
    columns: list[console.Column] = [(header, {"style": "cyan", "overflow": "fold"}), ("", {"no_wrap": True})]
    loss = f"loss ± {LEVEL:.0%} interval"
    columns += [(title, number) for title in (loss, "bits/byte", "tokens/s", "parameters", "trials")]
    rows = [[name, *_cells(result, variant)] for name, variant in zip(names, experiment.variants, strict=True)]
    console.stdout().print(console.table(columns, rows))
    for variant in experiment.variants:
        if variant.matched is not None:
            console.note(f"{variant.label}: {variant.matched}")
    failed = [trial for trial in experiment.trials if trial.status == "failed"]
    for trial in failed:
        console.warn(f"{experiment.variant(trial.variant).label}, seed {trial.seed}: {trial.message}")
    _report_components([experiment.variant(key) for key in dict.fromkeys(trial.variant for trial in failed)])
    missing = sum(trial.status == "missing" for trial in experiment.trials)
    if missing:
        console.note(f"{console.plural(missing, 'trial')} missing: repeat the command to train what is missing")
    measure = measure_of(experiment)
    for effect in effects(experiment, measure):
        console.out(sentence(effect, measure))
    console.note(f"report: {result.report}")


def _names(experiment: Experiment) -> tuple[str, list[str]]:
    """Return the title and the cells of the column of variants: their values alone where one field differs."""
    labels = [variant.label for variant in experiment.variants]
    field = labels[0].partition("=")[0]
    if len(experiment.axes) == 1 and all(label.startswith(f"{field}=") for label in labels):
        return field, [label.removeprefix(f"{field}=") for label in labels]
    return "variant", labels


def _cells(result: Comparison, variant: Variant) -> list[str]:
    from gptkit.experiments.statistics import estimate

    trials = [trial for trial in result.experiment.trials_of(variant.key) if trial.status == "finished"]
    every = result.experiment.trials_of(variant.key)

    def mean(name: str, form: str) -> str:
        values = [getattr(trial, name) for trial in trials if getattr(trial, name) is not None]
        return format(statistics.fmean(values), form) if values else "–"

    losses = [trial.validation_loss for trial in trials if trial.validation_loss is not None]
    half = estimate(losses).half if losses else None
    return [
        "base" if variant.is_base else "",
        mean("validation_loss", ".4f") + ("" if half is None else f" ± {half:.4f}"),
        mean("bits_per_byte", ".3f"),
        mean("tokens_per_second", ",.0f"),
        f"{variant.parameters:,}",
        f"{len(trials)}/{len(every)}",
    ]


def _report_components(variants: Iterable[Variant]) -> None:
    """Report components of plugins that return a wrong value, in variants whose training failed."""
    from gptkit.cli.origin import wrong_component
    from gptkit.files import validate_data
    from gptkit.model.spec import ModelSpec

    reported = set()
    for variant in variants:
        try:
            wrong = wrong_component(validate_data(variant.spec["model"], ModelSpec))
        except GptkitError:  # a component is not installed any more
            continue
        if wrong is not None and wrong not in reported:
            reported.add(wrong)
            message, distribution = wrong
            console.warn(f"{message}; correct the component, then check it: gptkit plugin check {distribution}")
