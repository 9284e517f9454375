"""`gptkit evaluate`: measure a model's loss on text."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.options import Json, Precision, Quiet, RunDirectory, Step
from gptkit.core.activity import working


def evaluate(
    directory: RunDirectory,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", metavar="FILE", help="Text to evaluate on: a file, a directory or a glob. Repeatable."),
    ] = None,
    step: Step = None,
    precision: Precision = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure loss in nats per token, perplexity, and bits per byte.

    Evaluates on the validation split of the run's corpus, or on other text with --data. Both use the procedure of
    validation during training. Bits per byte are comparable between models with different tokenizers.
    """
    with working(f"loading {directory}", quiet=quiet):
        import_torch()
        from gptkit.cli.precision import parsed
        from gptkit.runs.evaluating import NO_BITS_PER_BYTE, NO_TEXT_PREDICTED
        from gptkit.runs.run import load

        run = load(directory, step=step, precision=parsed(precision) if precision else None)
    with working("evaluating", quiet=quiet) as progress:
        numbers = run.evaluate(data or None, progress=progress)
    corpus = ", ".join(data) if data else "the validation split of its corpus"
    reason = NO_TEXT_PREDICTED if run.tokenizer.lossless else NO_BITS_PER_BYTE
    if as_json:
        missing = {} if "bits_per_byte" in numbers else {"bits_per_byte": None, "no_bits_per_byte": reason}
        console.out(json.dumps({"run": str(directory), "step": run.step, "data": data, **numbers, **missing}, indent=2))
        return
    if not quiet:
        console.note(f"{directory} at step {run.step:,}, on {corpus}")
    rows = [["loss", f"{numbers['loss']:.4f}", "nats per token"], ["perplexity", f"{numbers['perplexity']:,.2f}", ""]]
    if "bits_per_byte" in numbers:
        rows.append(["bits per byte", f"{numbers['bits_per_byte']:.4f}", ""])
    else:
        rows.append(["bits per byte", "none", reason])
    rows.append(["tokens", f"{numbers['tokens']:,.0f}", ""])
    console.stdout().print(console.table([("", {"style": "cyan"}), ("", {"justify": "right"}), ""], rows, header=False))
