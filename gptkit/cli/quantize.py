"""`gptkit quantize`: measure what a precision costs, and write a run in it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import Json, Quiet, RunDirectory, complete_precisions
from gptkit.core.activity import working

if TYPE_CHECKING:
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

    For example: gptkit quantize runs/smollm2 --precision int4 --report --text book.txt -o runs/smollm2-int4
    """
    if texts and not report:
        raise typer.BadParameter("it is used by --report only; add --report", param_hint="--text")
    if overwrite and output is None:
        raise typer.BadParameter("it replaces the run of --output; add --output RUN2", param_hint="--overwrite")
    with working(f"loading {directory}", quiet=quiet):
        from gptkit.cli.precision import parsed
        from gptkit.runs.quantization_report import quantization_report
        from gptkit.runs.quantizing import quantize_run, require_original
        from gptkit.runs.run import load

        chosen = parsed(precision)
        run = load(directory)
        require_original(run)
    if report or output is None:
        with working("measuring", quiet=quiet) as progress:
            measured = quantization_report(run, chosen, texts=texts, max_tokens=tokens, measure=report, progress=progress)
        if as_json:
            console.out(json.dumps({"run": str(directory), **measured.as_dict()}, indent=2))
        else:
            _print(measured, detailed=report)
    if output is not None:
        with working("quantizing", quiet=quiet) as progress:
            quantize_run(run, output, chosen, overwrite=overwrite, progress=progress)
        if not quiet:
            console.note(f"quantized to {output}; generate with it: gptkit generate {output}")


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
