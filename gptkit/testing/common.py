"""Checks of every component."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from gptkit.core.component import Component
from gptkit.core.errors import RegistryError
from gptkit.reflect import docstring
from gptkit.testing.check import Checks, expect, skip
from gptkit.testing.subject import Subject

__all__ = ["checks", "missing_examples"]

checks = Checks()

_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


@checks.add("named", "Specs select a component by its name, so it must be well-formed and unique.")
def named(subject: Subject) -> None:
    cls = type(subject.spec)
    try:
        name = cls.component_name()
    except RegistryError as error:
        expect(False, error.message)
    expect(_NAME.fullmatch(name), f"the name is {name!r}; use lower-case letters, digits, hyphens and dots")
    for former in cls.aliases:
        expect(former != name, f"the name {name!r} is listed among its own former names")
    registry = subject.registry
    if subject.kind not in registry.kinds():
        skip(f"the kind {subject.kind!r} is not registered here")
    held = registry.entries(subject.kind).get(name)
    available = held is None or (held.cls.__module__, held.cls.__qualname__) == (cls.__module__, cls.__qualname__)
    expect(available, f"{subject.kind} {name!r} is provided by {held.plugin.provenance} already" if held else "")


@checks.add("documented", "Docs, `gptkit components` and editors show the docstring and the fields' descriptions.")
def documented(subject: Subject) -> None:
    cls = type(subject.spec)
    summary = docstring.parse(cls.__dict__.get("__doc__")).summary
    expect(summary, f"{cls.__name__} has no docstring")
    expect(summary.endswith((".", "!", "?")), f"the docstring's first sentence does not end with a full stop: {summary!r}")
    limits = f"the docstring's first sentence has {len(summary)} characters; tables show 16 to 130: {summary!r}"
    expect(16 <= len(summary) < 130, limits)
    bare = [name for name, info in cls.model_fields.items() if name != "name" and len(info.description or "") < 5]
    expect(not bare, f"without a description: {', '.join(bare)}; write Field(…, description='…')")


@checks.add("constructible", "Users, docs and this kit build a component with its defaults or examples.")
def constructible(subject: Subject) -> None:
    cls = type(subject.spec)
    missing = missing_examples(cls)
    expect(missing is None, missing or "")
    for fields in cls.examples:
        try:
            cls.model_validate({"name": subject.spec.name, **fields}, context={"registry": subject.registry})
        except ValidationError as error:
            expect(False, f"the example {dict(fields)} is not valid: {_first(error)}")


@checks.add("round-trip", "Runs store specs as JSON, which must be read back as an equal spec.")
def round_trip(subject: Subject) -> None:
    spec = subject.spec
    try:
        text = json.dumps(spec.model_dump(mode="json"), allow_nan=False)
        again = type(spec).model_validate(json.loads(text), context={"registry": subject.registry})
    except (TypeError, ValueError) as error:  # a ValidationError is a ValueError
        expect(False, f"the spec cannot be written as JSON and read back: {_first(error)}")
    expect(again == spec, f"written as JSON ({text}) and read back it is another spec: {again!r}, not {spec!r}")


@checks.add("frozen", "Specs are compared, hashed and used as keys, so they must be frozen and reject unknown fields.")
def frozen(subject: Subject) -> None:
    spec: Any = subject.spec
    expect(type(spec).model_config.get("frozen"), "its fields are mutable; remove `frozen` from model_config")
    fields = {name: getattr(spec, name) for name in type(spec).model_fields}
    lists = [name for name, value in fields.items() if isinstance(value, (list, set))]
    expect(not lists, f"{', '.join(lists)}: a list can be changed and not be hashed; annotate it as tuple[…, ...]")
    # Parts of a model are keys of what layers share.
    unhashable = [name for name, value in fields.items() if spec.builds_module and not _is_hashable(value)]
    expect(not unhashable, f"{', '.join(unhashable)}: cannot be hashed; annotate it as a tuple, of pairs for a mapping")
    data = spec.model_dump(mode="json")
    try:
        type(spec).model_validate({**data, "no_such_field": 1}, context={"registry": subject.registry})
    except ValidationError:
        return
    expect(False, "an unknown field is accepted; remove `extra` from model_config")


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def missing_examples(cls: type[Component]) -> str | None:
    """Return the fields without which a component has no configuration to be checked, with the remedy; None without any."""
    needed = [name for name, info in cls.model_fields.items() if info.is_required() and name != "name"]
    if cls.examples or not needed:
        return None
    fields = f"it has the required field{'s' if len(needed) > 1 else ''} {', '.join(needed)}, and no `examples`"
    values = ", ".join(f'"{name}": …' for name in needed)
    return f"{fields}; give {'them defaults' if len(needed) > 1 else 'it a default'}, or add examples = ({{{values}}},)"


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors()[0]
        return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
    return str(error).splitlines()[0]
