"""`gptkit diff`: compare two resolved specs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.options import Json, complete_specs

if TYPE_CHECKING:
    from gptkit.cli.subject import Subject


def diff(
    left: Annotated[str, typer.Argument(metavar="A", help="A spec file or a run directory.", autocompletion=complete_specs)],
    right: Annotated[
        str, typer.Argument(metavar="B", help="The spec or run to compare with.", autocompletion=complete_specs)
    ],
    as_json: Json = False,
) -> None:
    """Compare two resolved specs or runs, and the sizes of their models."""
    from gptkit.cli.subject import open_subject
    from gptkit.core.diff import differences

    one, other = open_subject(left), open_subject(right)
    changes = list(differences(one.spec, other.spec))
    sizes = list(_sizes(one, other))
    if as_json:
        data = {
            "spec": {each.dotted: [_data(each.left), _data(each.right)] for each in changes},
            "sizes": {name: [a, b] for name, a, b in sizes},
        }
        console.out(json.dumps(data, indent=2, ensure_ascii=False))
        return
    if not changes:
        console.out("no differences")
        return
    columns: list[console.Column] = [
        ("", {"style": "cyan", "no_wrap": True}),
        (left, {"overflow": "fold"}),
        (right, {"overflow": "fold"}),
    ]
    console.stdout().print(
        console.table(columns, [[each.dotted, _shown(each.left), _shown(each.right)] for each in changes])
    )
    if sizes:
        console.heading("Sizes")
        rows = [[name.replace("_", " "), _size(name, a), _size(name, b), _ratio(a, b)] for name, a, b in sizes]
        numbers = {"justify": "right"}
        columns = [("", {"style": "cyan"}), ("A", numbers), ("B", numbers), ("B / A", numbers)]
        console.stdout().print(console.table(columns, rows))


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
