"""`gptkit inspect`: what a model computes for a text. Only the result is printed on stdout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import Json, Precision, Quiet, RunDirectory, Step
from gptkit.core.activity import working
from gptkit.core.errors import GptkitError

if TYPE_CHECKING:
    from gptkit.inspection.inspect import Inspection

__all__ = ["inspect"]

_MOST_SURPRISING = 8
_WARM, _HOT = 4.0, 8.0
"""Bits from which a token is colored in the terminal."""


def inspect(
    directory: RunDirectory,
    text: Annotated[str | None, typer.Option("--text", "-t", metavar="TEXT", help="The text.", show_default=False)] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="FILE", help="Read the text from a file; - reads stdin.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write an interactive page (.html) or the data (.json).",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, metavar="N", help="Inspect the first N tokens.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, max=50, metavar="N", help="Tokens kept of each prediction.")] = 5,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="LIST",
            help="Layers whose attention is kept, as in 0,5,8-11; all by default.",
            show_default=False,
        ),
    ] = None,
    attention: Annotated[bool, typer.Option("--attention/--no-attention", help="Compute attention weights.")] = True,
    step: Step = None,
    precision: Precision = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a model computes for a text: surprise, logit lens, attention.

    Surprise is the number of bits of each token. The logit lens shows what each layer would predict. Attention weights are
    shown by layer and head on the page that -o writes, one file that needs no network.

    For example: gptkit inspect runs/gpt --text "The cat sat on the mat" -o cat.html
    """
    content = _text(text, file)
    chosen = None if layers is None else _layers(layers)
    with working(f"loading {directory}", quiet=quiet):
        from gptkit.cli.precision import parsed
        from gptkit.inspection.inspect import inspect_ids
        from gptkit.pages.report import check_report, json_text
        from gptkit.runs.prompts import prompt_ids
        from gptkit.runs.run import load

        if output is not None:
            check_report(output)
        run = load(directory, step=step, precision=parsed(precision) if precision else None)
    ids = prompt_ids(run.tokenizer, content)
    with working("inspecting", quiet=quiet) as progress:
        view = inspect_ids(
            run.model,
            run.tokenizer,
            ids[:tokens],
            name=run.spec.name,
            top=top,
            # The terminal shows no attention.
            attention=attention and (output is not None or as_json),
            layers=chosen,
            progress=progress,
        )
    if output is not None:
        view.save(output)
    if as_json:
        console.out(json_text(view.as_dict()).rstrip("\n"))
    else:
        _show(view)
    if output is not None and not quiet:
        console.note(f"written to {output}", style="dim")


def _text(text: str | None, file: str | None) -> str:
    from gptkit.core.atomic import reading
    from gptkit.text.decoding import decode_utf8

    if (text is None) == (file is None):
        raise GptkitError("inspect needs one text", hint='Pass --text "…" or --file FILE (- reads stdin).')
    if file == "-":
        text = "".join(decode_utf8([sys.stdin.buffer.read()], "stdin"))
    elif file is not None:
        with reading(Path(file)), Path(file).open("rb") as stream:
            text = "".join(decode_utf8(stream, file))
    if not text:
        raise GptkitError("the text is empty", hint="Pass at least one character.")
    return text


def _layers(text: str) -> set[int]:
    """Parse ``0,5,8-11``."""
    result: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise GptkitError(f"--layers {text}: {part.strip()!r} is not a layer", hint="As in: --layers 0,5,8-11")
        if dash and int(last) < int(first):
            raise GptkitError(f"--layers {text}: {part.strip()} has no layers", hint=f"Write {last}-{first}.")
        result |= set(range(int(first), int(last or first) + 1))
    return result


def _show(view: Inspection) -> None:
    from rich.text import Text

    from gptkit.pages.tokens import label, running

    out = console.stdout()
    facts = [console.plural(len(view.ids), "token")]
    if view.bits_per_token is not None:
        facts.append(f"{view.bits_per_token:.2f} bits per token")
    if view.bits_per_byte is not None:
        facts.append(f"{view.bits_per_byte:.3f} bits per byte")
    console.out(f"{view.name}: {', '.join(facts)}")
    colored = Text()
    for token, bits in zip(view.tokens, [0.0, *view.bits], strict=True):
        colored.append(running(token), "bold red" if bits >= _HOT else "yellow" if bits >= _WARM else "")
    console.heading("Surprise")
    out.print(colored, soft_wrap=False)
    order = sorted(range(len(view.bits)), key=lambda index: -view.bits[index])[:_MOST_SURPRISING]
    rows = []
    for index in sorted(order):
        best = view.lens.at(-1, index)
        expected = f"{label(view.vocabulary[best.ids[0]])} {best.probabilities[0]:.1%}"
        rows.append([index + 1, label(view.tokens[index + 1]), f"{view.bits[index]:.2f}", expected])
    if rows:
        out.print()
        right = {"justify": "right"}
        out.print(console.table([("token", right), "most surprising", ("bits", right), "expected instead"], rows))
    console.heading("Logit lens: the token after the text, as each layer would predict it")
    out.print(console.table(["after", ("KL bits", {"justify": "right"}), "predictions"], _lens_rows(view)))


def _lens_rows(view: Inspection) -> list[list[str]]:
    from gptkit.pages.tokens import label

    rows = []
    for depth in range(view.lens.n_depths - 1, -1, -1):
        best = view.lens.at(depth, -1)
        words = [f"{label(view.vocabulary[token])} {p:.1%}" for token, p in zip(best.ids, best.probabilities, strict=True)]
        rows.append([f"layer {depth - 1}" if depth else "embedding", f"{best.divergence:.2f}", "  ".join(words[:3])])
    return rows
