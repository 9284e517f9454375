"""`gptkit bench`: measure a spec's training on this machine, and what makes it faster."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.options import FileOrRun, Json, Overrides, Quiet, chosen
from gptkit.core.activity import working

if TYPE_CHECKING:
    from gptkit.runs.bench import BenchResult
    from gptkit.runs.bench_advice import Tried
    from gptkit.runs.bench_stages import StageSpeed
    from gptkit.runs.bench_timeline import ComponentTime

_PHASES = ("forward", "backward", "recomputation", "step", "decoding")


def bench(
    target: FileOrRun,
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option("--steps", min=1, max=10_000, metavar="N", help="Number of measured steps.")] = 5,
    warmup: Annotated[
        int, typer.Option("--warmup", min=0, max=10_000, metavar="N", help="Number of steps before them.")
    ] = 2,
    advise: Annotated[
        bool, typer.Option("--advise/--no-advise", help="Try changes of the spec that may be faster, two steps each.")
    ] = True,
    generate: Annotated[
        int | None,
        typer.Option("--generate", min=2, metavar="N", help="Also measure decoding of N tokens.", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a spec's training: speed, use of the machine, memory, time by component, and what to change.

    It takes a few real training steps on random tokens, so it needs no corpus; nothing is written.

    For example: gptkit bench gpt2 -s training.batch_size=8 --generate 64
    """
    with working(f"measuring {target}", quiet=quiet) as show:
        import_torch()
        from gptkit.cli.subject import open_subject
        from gptkit.core.errors import GptkitError
        from gptkit.runs.bench import bench as measure
        from gptkit.training.allocator import set_allocators

        set_allocators()
        subject = open_subject(target, chosen(overrides))
        vocab_size = subject.vocab_size(fit=True)
        if vocab_size is None:
            raise GptkitError(
                "the vocabulary size depends on a corpus that is unavailable", hint="Set it: -s model.vocab_size=N"
            )
        result = measure(
            subject.spec, vocab_size, steps=steps, warmup=warmup, advise=advise, generate=generate, progress=show
        )
    if as_json:
        console.out(json.dumps(dataclasses.asdict(result), indent=2))
        return
    _print(subject.spec.name, result)


def _print(name: str, result: BenchResult) -> None:
    screen = console.stdout()
    screen.print(name, style="bold")
    columns: list[console.Column] = [("", {"style": "cyan"}), ("", {"no_wrap": True}), ("", {"style": "dim"})]
    screen.print(console.table(columns, list(_rows(result)), header=False))
    whole = sum(each.seconds for each in result.components)
    console.heading(f"Time by component: {whole * 1000:,.4g} ms a step")
    _print_components(result.components)
    if result.stages:
        _print_stages(result.stages)
    if result.decoding is not None:
        decoding = result.decoding
        console.heading("Decoding")
        rows = [
            ["time to first token", f"{decoding.first_token_seconds * 1000:,.4g} ms", f"{decoding.prompt_tokens:,} tokens"],
            ["tokens/s", f"{decoding.tokens_per_second:,.4g}", f"{decoding.tokens:,} tokens of one text"],
        ]
        screen.print(console.table(columns, rows, header=False))
        _print_components(decoding.components)
    if result.tried:
        _print_advice(result.tried)


def _rows(result: BenchResult) -> Iterator[list[str]]:
    from gptkit.model.plan import human_bytes

    place = result.device_name
    if result.device == "cpu":
        place += f", {console.plural(result.threads, 'thread')}"
    tokens = result.batch_size * result.window
    parts = "" if result.accumulation == 1 else f" in {result.accumulation} parts"
    yield ["device", place, result.precision]
    stage = "" if result.stage is None else f", in stage {result.stage}"
    yield ["step", f"{result.batch_size:,} × {result.window:,}", f"{tokens:,} tokens{parts}{stage}"]
    spread = f"median; {result.lowest:,.4g} to {result.highest:,.4g} in {console.plural(len(result.step_seconds), 'step')}"
    yield ["tokens/s", f"{result.tokens_per_second:,.4g}", spread]
    product = f"the {result.product_rate / 1e9:,.0f} of a large {result.product_precision} product here"
    rate = f"{result.utilization:.0%} of {product}"
    yield ["GFLOP/s", f"{result.flops_per_second / 1e9:,.4g}", rate]
    peak = "unknown" if result.peak_bytes is None else human_bytes(result.peak_bytes)
    largest = "" if result.stage is None else " for the largest stage"
    yield ["memory", peak, f"at the peak; planned: {human_bytes(result.planned_bytes)}{largest}"]


def _print_stages(stages: list[StageSpeed]) -> None:
    """Print the speed of each stage, and the time of all steps."""
    console.heading("Stages")
    rows = [
        [
            str(stage.number),
            f"{stage.batch_size:,} × {stage.window:,}",
            f"{stage.tokens:,}",
            "not enough memory" if stage.tokens_per_second is None else f"{stage.tokens_per_second:,.4g}",
            "" if stage.seconds is None else console.duration(stage.seconds),
        ]
        for stage in stages
    ]
    seconds = [stage.seconds for stage in stages if stage.seconds is not None]
    if len(seconds) == len(stages):
        rows.append(["all", "", f"{sum(stage.tokens for stage in stages):,}", "", console.duration(sum(seconds))])
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    columns: list[console.Column] = [
        ("", {"style": "cyan"}),
        "batch",
        ("tokens", right),
        ("tokens/s", right),
        ("time", right),
    ]
    console.stdout().print(console.table(columns, rows))


def _print_components(times: list[ComponentTime]) -> None:
    """Print a row per component, with a column for each phase that occurs."""
    phases = [phase for phase in _PHASES if any(each.phase == phase for each in times)]
    names = list(dict.fromkeys(each.component for each in times))
    by_place = {(each.component, each.phase): each for each in times}
    rows: list[list[Any]] = []
    for name in names:
        cells = [by_place.get((name, phase)) for phase in phases]
        share = sum(each.share for each in cells if each is not None)
        rows.append([name, *("" if each is None else f"{each.seconds * 1000:,.1f}" for each in cells), f"{share:.1%}"])
    titles = [f"{phase} ms" for phase in phases]
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    columns: list[console.Column] = [("", {"style": "cyan"}), *((title, right) for title in (*titles, "share"))]
    console.stdout().print(console.table(columns, rows))


def _print_advice(tried: list[Tried]) -> None:
    from gptkit.runs.bench_advice import NOTABLE

    gains = [each for each in tried if each.gain is not None and each.gain >= NOTABLE]
    console.heading("What to change")
    if not gains:
        console.out("nothing that was tried is faster")
    for title, group in (
        ("the training computes the same", [each for each in gains if each.same]),
        ("the training changes", [each for each in gains if not each.same]),
        ("no gain", [each for each in tried if each.gain is not None and each.gain < NOTABLE]),
        ("not tried", [each for each in tried if each.gain is None]),
    ):
        if not group:
            continue
        rows = [[each.what, "" if each.gain is None else f"{each.gain:+.0%}", each.why] for each in group]
        console.stdout().print(title, style="dim")
        columns: list[console.Column] = [("", {"style": "cyan"}), ("", {"justify": "right", "no_wrap": True}), ""]
        console.stdout().print(console.table(columns, rows, header=False))
