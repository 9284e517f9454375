"""`gptkit quantize`: measure what a precision costs, and write a run in it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import Json, Quiet, RunDirectory, complete_precisions
from gptkit.core.activity import working
from gptkit.core.commands import command

if TYPE_CHECKING:
    from gptkit.model.calibration import Calibration
    from gptkit.runs.quantization_report import QuantizationReport

__all__ = ["quantize"]


def quantize(
    directory: RunDirectory,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            "-p",
            metavar="NAME",
            help="The precision, as in int8, or with fields: '{name: int4, group: 64}'.",
            autocompletion=complete_precisions,
        ),
    ] = "int4",
    report: Annotated[
        bool, typer.Option("--report", help="Also measure perplexity, divergence and speed, and list the matrices.")
    ] = False,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="Text for --report; by default the validation split of the run's corpus. Repeatable.",
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option("--tokens", min=2, metavar="N", help="Largest number of tokens for --report.")
    ] = 16_384,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Choose the integers for the inputs that the matrices have on the training split of the run's corpus.",
        ),
    ] = False,
    calibration: Annotated[
        list[str] | None,
        typer.Option("--calibration", metavar="FILE", help="Calibrate on this text instead. Repeatable."),
    ] = None,
    calibration_tokens: Annotated[
        int | None,
        typer.Option(
            "--calibration-tokens",
            min=1024,
            metavar="N",
            help="Number of tokens to calibrate on, 8192 by default.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RUN2", help="Write a run in this precision.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in RUN2 when the new one is complete.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Store a run's weights in fewer bits, for generation; without --output only show what it costs.

    A run in a precision is loaded, evaluated and chatted with as any other, but not trained or exported. The same precision
    is applied while loading by gptkit generate RUN --precision NAME, which takes longer to start. Precisions:
    gptkit components precision.

    int4 and int8 lose less when they are calibrated on text of the kind that will be generated, which takes minutes instead
    of seconds. --report measures on other text.

    For example: gptkit quantize runs/smollm2 --calibration novels.txt --report --text book.txt -o runs/smollm2-int4
    """
    if texts and not report:
        raise typer.BadParameter("it is used by --report only; add --report", param_hint="--text")
    if overwrite and output is None:
        raise typer.BadParameter("it replaces the run of --output; add --output RUN2", param_hint="--overwrite")
    if calibration_tokens is not None and not (calibrate or calibration):
        raise typer.BadParameter("add --calibrate or --calibration FILE", param_hint="--calibration-tokens")
    if same := _same_file(calibration or (), texts or ()):
        raise typer.BadParameter(f"{same} is also a calibration text; measure on other text", param_hint="--text")
    with working(f"loading {directory}", quiet=quiet):
        from gptkit.cli.precision import parsed
        from gptkit.runs.calibrating import TOKENS, calibrate_run
        from gptkit.runs.precisions import require_original
        from gptkit.runs.quantization_report import quantization_report
        from gptkit.runs.quantizing import quantize_run, require_target
        from gptkit.runs.run import load

        chosen = parsed(precision)
        run = load(directory)
        require_original(run)
        if output is not None:
            require_target(run, output, overwrite)
    calibrated = None
    if calibrate or calibration:
        with working("calibrating", quiet=quiet) as progress:
            n_tokens = calibration_tokens or TOKENS
            calibrated = calibrate_run(run, chosen, calibration, max_tokens=n_tokens, progress=progress)
        if not quiet:
            _note_rounded(calibrated)
    if report or output is None:
        with working("measuring", quiet=quiet) as progress:
            measured = quantization_report(
                run,
                chosen,
                calibration=calibrated,
                texts=texts,
                max_tokens=tokens,
                measure=report,
                progress=progress,
            )
        if as_json:
            console.out(json.dumps({"run": str(directory), **measured.as_dict()}, indent=2))
        else:
            _print(measured, detailed=report)
    if output is not None:
        with working("quantizing", quiet=quiet) as progress:
            quantize_run(run, output, chosen, calibration=calibrated, overwrite=overwrite, progress=progress)
        if not quiet:
            console.note(f"quantized to {output}; generate with it: {command('gptkit generate', output)}")


def _same_file(some: Sequence[str], others: Sequence[str]) -> str | None:
    """Return the first of `others` that is one of `some`."""
    files = {Path(path).resolve() for path in some}
    return next((path for path in others if Path(path).resolve() in files), None)


def _note_rounded(calibration: Calibration) -> None:
    """Print which matrices are rounded to nearest in spite of the calibration."""
    names: dict[str, list[str]] = {}
    for name, reason in calibration.rounded.items():
        names.setdefault(reason, []).append(name)
    for reason, some in names.items():
        shown = ", ".join(some[:3]) + (f" and {len(some) - 3} more" if len(some) > 3 else "")
        console.note(f"rounded to nearest: {shown} ({reason})")


def _print(report: QuantizationReport, *, detailed: bool) -> None:
    rows = [
        [
            "weights",
            _size(report.bytes_before),
            _size(report.bytes_after),
            f"{report.bytes_after / report.bytes_before:.1%}",
        ],
        ["error of the weights", "", f"{report.error:.2%}", ""],
    ]
    text = report.divergence
    if text is not None:
        before, after = math.exp(text.loss_before), math.exp(text.loss_after)
        rows += [
            ["perplexity", f"{before:,.3f}", f"{after:,.3f}", f"{text.change:+.2%}"],
            ["KL divergence", "", f"{text.divergence:.5f}", "nats per token"],
            ["same most likely token", "", f"{text.agreement:.2%}", f"of {text.tokens:,}"],
        ]
    if report.rate_before and report.rate_after:
        ratio = f"× {report.rate_after / report.rate_before:.2f}"
        rows.append(["tokens/s, one text", f"{report.rate_before:,.1f}", f"{report.rate_after:,.1f}", ratio])
    right = {"justify": "right"}
    columns = [("", {"style": "cyan"}), ("before", right), (report.precision.name, right), ("", right)]
    console.stdout().print(console.table(columns, rows))
    if not detailed:
        return
    rows = [
        [
            each.name,
            each.precision,
            " × ".join(map(str, each.shape)),
            f"{8 * each.bytes_after / math.prod(each.shape):.2f}",
            f"{each.error:.3%}",
        ]
        for each in report.matrices
    ]
    columns = [
        ("matrix", {"style": "cyan"}),
        ("precision", {}),
        ("shape", right),
        ("bits per weight", right),
        ("error", right),
    ]
    console.stdout().print(console.table(columns, rows))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
