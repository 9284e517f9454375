"""`gptkit diff`: what differs between two specs once every default is written out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.options import Json, complete_specs

if TYPE_CHECKING:
    from gptkit.cli.subject import Subject

_ABSENT = object()
Difference = tuple[str, Any, Any]


def diff(
    left: Annotated[str, typer.Argument(metavar="A", help="A spec file or a run's folder.", autocompletion=complete_specs)],
    right: Annotated[str, typer.Argument(metavar="B", help="Another one.", autocompletion=complete_specs)],
    as_json: Json = False,
) -> None:
    """Compare two specs or runs after everything is written out, and the sizes of their models."""
    from gptkit.cli.subject import open_subject

    one, other = open_subject(left), open_subject(right)
    found = list(differences(one.spec, other.spec))
    sizes = list(_sizes(one, other))
    if as_json:
        data = {
            "spec": {path: [_data(a), _data(b)] for path, a, b in found},
            "sizes": {name: [a, b] for name, a, b in sizes},
        }
        console.out(json.dumps(data, indent=2, ensure_ascii=False))
        return
    if not found:
        console.out("no difference")
        return
    columns: list[console.Column] = [
        ("", {"style": "cyan", "no_wrap": True}),
        (left, {"overflow": "fold"}),
        (right, {"overflow": "fold"}),
    ]
    console.stdout().print(console.table(columns, [[path, _shown(a), _shown(b)] for path, a, b in found]))
    if sizes:
        console.heading("Sizes")
        rows = [[name.replace("_", " "), _size(name, a), _size(name, b), _ratio(a, b)] for name, a, b in sizes]
        numbers = {"justify": "right"}
        columns = [("", {"style": "cyan"}), ("A", numbers), ("B", numbers), ("B / A", numbers)]
        console.stdout().print(console.table(columns, rows))


def differences(one: Any, other: Any, path: str = "") -> Iterator[Difference]:
    """Path, left value and right value of whatever differs; a component that was replaced by another is one difference."""
    from gptkit.core.component import Component
    from gptkit.core.spec import Spec

    if isinstance(one, Spec) and isinstance(other, Spec):
        replaced = isinstance(one, Component) and isinstance(other, Component) and one.name != other.name
        if replaced or type(one) is not type(other):
            yield path, one, other
            return
        for field in type(one).model_fields:
            below = f"{path}.{field}" if path else field
            yield from differences(getattr(one, field), getattr(other, field), below)
    elif _is_list(one) and _is_list(other):
        for index in range(max(len(one), len(other))):
            left = one[index] if index < len(one) else _ABSENT
            right = other[index] if index < len(other) else _ABSENT
            yield from differences(left, right, f"{path}.{index}")
    elif one is _ABSENT or other is _ABSENT or one != other:
        yield path, one, other


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _data(value: Any) -> Any:
    from gptkit.core.spec import Spec

    if value is _ABSENT:
        return None
    return value.model_dump(mode="json") if isinstance(value, Spec) else value


def _shown(value: Any) -> str:
    """A component by its name and the fields that are not at their defaults."""
    from gptkit.reflect.snippets import flow, plain

    return "–" if value is _ABSENT else flow(plain(value))


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
