"""`gptkit diff`: compare two resolved specs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.drawn import check_target, write
from gptkit.cli.options import Json, complete_specs
from gptkit.core.activity import working

if TYPE_CHECKING:
    from gptkit.cli.subject import Subject


_TRAINED = {
    "step": "steps",
    "tokens": "tokens",
    "loss": "last training loss",
    "lowest_loss": "lowest training loss",
    "validation_loss": "last validation loss",
    "lowest_validation_loss": "lowest validation loss",
}
"""Metrics of a run, and their labels."""


def diff(
    left: Annotated[str, typer.Argument(metavar="A", help="A spec file or a run directory.", autocompletion=complete_specs)],
    right: Annotated[
        str, typer.Argument(metavar="B", help="The spec or run to compare with.", autocompletion=complete_specs)
    ],
    html: Annotated[
        str | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with both diagrams side by side; - prints it.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two specs or runs: their resolved specs, the sizes of their models, and the losses of runs."""
    with working("comparing"):
        from gptkit.cli.subject import open_subject
        from gptkit.core.diff import differences

        check_target(html, ".html")
        one, other = open_subject(left), open_subject(right)
        changes = list(differences(one.spec, other.spec))
        sizes = list(_sizes(one, other))
        trained = [_trained(subject) for subject in (one, other)]
    rows = [[each.dotted, _shown(each.left), _shown(each.right)] for each in changes]
    size_rows = [[name.replace("_", " "), _size(name, a), _size(name, b), _ratio(a, b)] for name, a, b in sizes]
    training_rows = list(_training_rows(*trained))
    if html is not None:
        from gptkit.cli.diff_page import diff_page

        write(html, lambda: diff_page(one, other, rows, size_rows, training_rows))
        return
    if as_json:
        data = {
            "spec": {each.dotted: [_data(each.left), _data(each.right)] for each in changes},
            "sizes": {name: [a, b] for name, a, b in sizes},
            "training": {name: [each.get(name) for each in trained] for name in _TRAINED if any(name in t for t in trained)},
        }
        console.out(json.dumps(data, indent=2, ensure_ascii=False))
        return
    if changes:
        columns: list[console.Column] = [
            ("", {"style": "cyan", "no_wrap": True}),
            (left, {"overflow": "fold"}),
            (right, {"overflow": "fold"}),
        ]
        console.stdout().print(console.table(columns, rows))
    else:
        console.out("no differences" if one.run is None or other.run is None else "no differences between the specs")
    if size_rows:
        _print_numbers("Sizes", size_rows)
    if any(trained):
        _print_numbers("Training", training_rows)


def _print_numbers(title: str, rows: list[list[str]]) -> None:
    console.heading(title)
    numbers = {"justify": "right"}
    columns: list[console.Column] = [("", {"style": "cyan"}), ("A", numbers), ("B", numbers), ("B / A", numbers)]
    console.stdout().print(console.table(columns, rows))


def _trained(subject: Subject) -> dict[str, float]:
    """Return the training metrics of a run; empty for a spec file."""
    if subject.run is None:
        return {}
    from gptkit.runs.progress import training_progress

    return training_progress(subject.run, subject.spec)


def _training_rows(one: dict[str, float], other: dict[str, float]) -> Iterator[list[str]]:
    for name, label in _TRAINED.items():
        a, b = one.get(name), other.get(name)
        if a is None and b is None:
            continue
        shown = ["–" if value is None else f"{value:.4f}" if "loss" in name else f"{value:,.0f}" for value in (a, b)]
        yield [label, *shown, "–" if a is None or b is None else _ratio(a, b)]


def _data(value: Any) -> Any:
    from gptkit.core.diff import ABSENT
    from gptkit.core.spec import Spec

    if value is ABSENT:
        return None
    return value.model_dump(mode="json") if isinstance(value, Spec) else value


def _shown(value: Any) -> str:
    """Format a value; a component as its name and its fields that differ from the defaults."""
    from gptkit.core.diff import ABSENT
    from gptkit.reflect.snippets import flow, plain

    return "–" if value is ABSENT else flow(plain(value))


def _sizes(one: Subject, other: Subject) -> Iterator[tuple[str, float, float]]:
    vocab_sizes = [subject.vocab_size(fit=True) for subject in (one, other)]
    if vocab_sizes[0] is None or vocab_sizes[1] is None:
        return
    left, right = one.plan(vocab_sizes[0]), other.plan(vocab_sizes[1])
    for field in dataclasses.fields(left):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if a != b:
            yield field.name, a, b


def _size(name: str, value: float) -> str:
    from gptkit.model.plan import human_bytes, human_count

    return human_bytes(value) if "bytes" in name else human_count(value).strip()


def _ratio(a: float, b: float) -> str:
    return f"{b / a:.3g}" if a else "–"
