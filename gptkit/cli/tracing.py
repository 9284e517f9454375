"""The trace of a generation: shown in the terminal, or written as a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gptkit.cli import console

if TYPE_CHECKING:
    from gptkit.inference.result import Generated
    from gptkit.inference.trace import SamplerStep, TokenTrace

__all__ = ["check_trace", "show_traces"]

_TERMINAL = "-"
_INDENT, _NAME, _KEPT = 5, 21, 16
"""Widths of the columns."""


def check_trace(target: str | None) -> None:
    """Check the value of --trace, before anything is generated.

    Raises:
        GptkitError: the trace cannot be written there.
    """
    from gptkit.pages.report import check_report

    if target is not None and target != _TERMINAL:
        check_report(target)


def show_traces(results: Sequence[Generated], target: str, model: str, *, as_json: bool, quiet: bool) -> None:
    """Print the traces or write them to a file.

    Args:
        results: the texts.
        target: the value of --trace: a file, or ``-`` for the terminal.
        model: name of the model.
        as_json: the texts are printed as JSON, which holds the traces.
        quiet: do not report the written file.
    """
    from gptkit.inference.trace_report import save_traces

    traces = [result.trace for result in results if result.trace is not None]
    if target != _TERMINAL:
        save_traces(target, traces, model)
        if not quiet:
            console.note(f"trace written to {target}", style="dim")
    elif not as_json:
        for index, trace in enumerate(traces):
            console.heading(f"Trace of text {index + 1}" if len(traces) > 1 else "Trace")
            for number, token in enumerate(trace.tokens, start=1):
                _show(number, token)


def _show(number: int, token: TokenTrace) -> None:
    from rich.text import Text

    from gptkit.pages.tokens import label

    out = console.stdout()
    facts = (
        f"  model {_percent(token.probability)}, drawn with {_percent(token.drawn_with)}, "
        f"rank {token.rank + 1:,}, entropy {token.entropy:.2f}"
    )
    out.print(Text.assemble((f"{number:4} {label(token.text)}", "bold"), (facts, "dim")), soft_wrap=not out.is_terminal)
    model = tuple(candidate.probability for candidate in token.candidates)
    n_all = token.steps[0].n_before if token.steps else token.n_left
    room = out.width - _INDENT - _NAME - _KEPT - 3
    rows = [("model", f"{n_all:,}", _candidates(token, None, model, room))]
    rows += [(_name(step), _kept(step), _candidates(token, step.before, step.after, room)) for step in token.steps]
    for name, kept, candidates in rows:
        name = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
        out.print(f"{'':{_INDENT}}{name:{_NAME}} {kept:>{_KEPT}}  {candidates}", soft_wrap=True)


def _name(step: SamplerStep) -> str:
    values = " ".join(f"{key} {value}" for key, value in step.fields.items())
    return f"{step.name} {values}".strip()


def _kept(step: SamplerStep) -> str:
    return f"{step.n_after:,}" if step.n_before == step.n_after else f"{step.n_before:,} → {step.n_after:,}"


def _candidates(token: TokenTrace, before: Sequence[float | None] | None, after: Sequence[float | None], room: int) -> str:
    """The drawn token and the most likely candidates before a sampler, each with its probabilities before and after."""
    from gptkit.pages.tokens import label

    reached = after if before is None else before
    order = sorted((index for index, p in enumerate(reached) if p is not None), key=lambda index: -(reached[index] or 0.0))
    words: list[tuple[int, str]] = []
    for index in sorted(order, key=lambda index: token.candidates[index].id != token.id):
        p, previous = after[index], reached[index] or 0.0
        change = "out" if p is None else f"{100 * p:.1f}" if before is None else f"{100 * previous:.1f}→{100 * p:.1f}"
        words.append((order.index(index), f"{label(token.candidates[index].text, 8)} {change}"))
        if sum(len(word) + 2 for _, word in words) > room + 2:
            words.pop()
            break
    return "  ".join(word for _, word in sorted(words))


def _percent(p: float) -> str:
    return f"{p:.1%}" if p >= 0.0005 else "<0.1%"
