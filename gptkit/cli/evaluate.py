"""`gptkit evaluate`: measure a model's loss on text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import Json, RunDirectory
from gptkit.core.errors import DataError

if TYPE_CHECKING:
    from gptkit.runs.run import Run


def evaluate(
    directory: RunDirectory,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", metavar="FILE", help="Text to evaluate on: a file, a directory or a glob. Repeatable."),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option("--step", metavar="N", help="Step of the checkpoint; the latest by default.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure loss in nats per token, perplexity, and bits per byte.

    Evaluates on the validation split of the run's corpus, or on other text with --data. Bits per byte are comparable
    between models with different tokenizers.
    """
    from gptkit.runs.run import NO_BITS_PER_BYTE, load

    run = load(directory, step=step)
    numbers = _on_files(run, data) if data else run.evaluate()
    corpus = ", ".join(data) if data else "the validation split of its corpus"
    if as_json:
        missing = {} if "bits_per_byte" in numbers else {"bits_per_byte": None, "no_bits_per_byte": NO_BITS_PER_BYTE}
        console.out(json.dumps({"run": str(directory), "step": run.step, "data": data, **numbers, **missing}, indent=2))
        return
    console.note(f"{directory} at step {run.step:,}, on {corpus}")
    rows = [["loss", f"{numbers['loss']:.4f}", "nats per token"], ["perplexity", f"{numbers['perplexity']:,.2f}", ""]]
    if "bits_per_byte" in numbers:
        rows.append(["bits per byte", f"{numbers['bits_per_byte']:.4f}", ""])
    else:
        rows.append(["bits per byte", "none", NO_BITS_PER_BYTE])
    rows.append(["tokens", f"{numbers['tokens']:,.0f}", ""])
    console.stdout().print(console.table([("", {"style": "cyan"}), ("", {"justify": "right"}), ""], rows, header=False))


def _on_files(run: Run, paths: list[str]) -> dict[str, float]:
    """Score every token given the preceding ones of its document: at least half a context of them, where available."""
    from gptkit.core.registry import default_registry
    from gptkit.inference.score import score
    from gptkit.runs.run import prompt_ids

    registry = default_registry()
    nats, tokens, size = 0.0, 0, 0
    restored = True
    for path in paths:
        name = "jsonl" if path.endswith((".jsonl", ".jsonl.gz")) else "text"
        spec = registry.component("data", name).model_validate({"name": name, "path": path})
        for document in spec.documents(Path()):  # type: ignore[attr-defined]
            # The token that precedes every text is not predicted.
            first = prompt_ids(run.tokenizer, "")[:1]
            text_ids = run.tokenizer.encode(document.text)
            restored = restored and (run.tokenizer.lossless or run.tokenizer.decode(text_ids) == document.text)
            ids = [*first, *text_ids]
            found = score(run.model, ids)
            nats -= float(found.double().sum())
            tokens += found.shape[0]
            size += len(document.text.encode())
    if not tokens:
        raise DataError(f"{', '.join(paths)}: no text to evaluate on", hint="Pass files with text.")
    loss = nats / tokens
    numbers = {"loss": loss, "perplexity": math.exp(loss) if loss < 709 else math.inf, "tokens": float(tokens)}
    return {**numbers, "bits_per_byte": nats / (math.log(2) * size)} if restored else numbers
