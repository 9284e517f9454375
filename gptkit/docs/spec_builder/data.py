"""Data of the spec builder: the registry as JSON, for scripts that have no Python."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Entry, Registry
from gptkit.diagrams.facts import ALWAYS, HIDDEN, PHRASES
from gptkit.files import read
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.attention_backend import AttentionBackendSpec, ScoreFeatures
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.position import PositionSpec
from gptkit.kinds.tokenizer import TokenizerSpec
from gptkit.presets.catalog import groups, shipped, summary
from gptkit.reflect import docstring
from gptkit.reflect.describe import smallest
from gptkit.reflect.schema import json_schema
from gptkit.runs.spec import ExperimentSpec

__all__ = ["builder_data"]

_KIND = "#/$defs/kind."
_FEATURES = ("softcap", "sinks", "dropout", "pattern", "content_term", "added_term", "value_term", "bias")


def builder_data(registry: Registry) -> dict[str, Any]:
    """Return everything that the spec builder uses, as plain data.

    Returns:
        ``root``, ``model`` and ``defs``: the fields of the file, of its model, and of other mappings.
        ``kinds``: the components by kind and name, with their fields and what they declare.
        ``presets``: their data as in the file.
        ``phrases``, ``always`` and ``hidden``: tables of `gptkit.diagrams.facts`.
        A field is its JSON Schema with ``kind`` (what it takes), ``list``, ``nullable`` and ``required``.
    """
    schema = json_schema(ExperimentSpec, registry)
    definitions = schema["$defs"]
    needed, classes = _reachable(schema, definitions)
    components = {kind: registry.entries(kind) for kind in sorted(needed)}
    return {
        "root": _fields(schema),
        "model": _fields(definitions["ModelSpec"]),
        "defs": {name: _fields(definitions[name]) for name in sorted(classes)},
        "kinds": {
            kind: {
                name: {**_declared(entry, registry), "fields": _fields(_schema_of(kind, name, definitions))}
                for name, entry in sorted(entries.items())
            }
            for kind, entries in components.items()
        },
        "presets": _presets(registry),
        "phrases": PHRASES,
        "always": ALWAYS,
        "hidden": HIDDEN,
    }


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for inner in schema.values():
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)


def _reachable(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Return the kinds that a file can contain, and the definitions of its other mappings."""
    kinds: set[str] = set()
    others: set[str] = set()
    waiting = list(_references(schema["properties"]))
    while waiting:
        reference = waiting.pop()
        name = reference.removeprefix("#/$defs/")
        if reference.startswith(_KIND):
            kind = reference.removeprefix(_KIND)
            if kind in kinds:
                continue
            kinds.add(kind)
            for choice in definitions[name]["anyOf"][1:]:
                target = definitions[choice["$ref"].removeprefix("#/$defs/")] if "$ref" in choice else choice
                waiting += _references(target.get("properties", {}))
        elif name not in others:
            others.add(name)
            waiting += _references(definitions[name].get("properties", {}))
    return kinds, others


def _schema_of(kind: str, name: str, definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    for choice in definitions[f"kind.{kind}"]["anyOf"][1:]:
        target: Mapping[str, Any] = definitions[choice["$ref"].removeprefix("#/$defs/")] if "$ref" in choice else choice
        if target["properties"]["name"].get("const") == name:
            return target
    raise GptkitError(f"the JSON Schema does not describe {kind} {name!r}")


def _fields(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    required = set(schema.get("required", ()))
    fields = {}
    for name, field in schema.get("properties", {}).items():
        options = field.get("anyOf", [field])
        kinds = [option["$ref"].removeprefix(_KIND) for option in options if option.get("$ref", "").startswith(_KIND)]
        items = [option["items"] for option in options if isinstance(option.get("items"), Mapping)]
        listed = [item["$ref"].removeprefix(_KIND) for item in items if item.get("$ref", "").startswith(_KIND)]
        fields[name] = {
            **field,
            **({"kind": (kinds or listed)[0], "list": bool(listed and not kinds)} if kinds or listed else {}),
            "nullable": ("default" in field and field["default"] is None) or {"type": "null"} in options,
            "required": name in required,
        }
    return fields


def _declared(entry: Entry, registry: Registry) -> dict[str, Any]:
    """Return what a component declares, besides its fields."""
    cls = entry.cls
    result: dict[str, Any] = {
        "builtin": cls.__module__.startswith("gptkit."),
        "summary": docstring.parse(cls.__doc__).summary,
    }
    if issubclass(cls, AttentionSpec):
        result["accepts"] = sorted(cls.accepts)
    if issubclass(cls, PositionSpec):
        result |= {"uses": sorted(cls.uses), "score_function": cls.score_function}
    if issubclass(cls, BlockSpec):
        result |= _block(cls, registry)
    if issubclass(cls, AttentionBackendSpec):
        result["limits"] = _limits(_smallest(cls, registry))
    if issubclass(cls, TokenizerSpec):
        result |= _sizes(cls, registry)
    return result


def _smallest(cls: type[Component], registry: Registry, **fields: Any) -> Any:
    """Return the component with the fewest fields and these; None if they are refused together."""
    try:
        return cls.model_validate({**smallest(cls, registry), **fields}, context={"registry": registry})
    except ValidationError:
        return None


def _choices(cls: type[Component]) -> dict[str, tuple[Any, ...]]:
    """Return the values of the boolean and `Literal` fields of a component, by name."""
    result: dict[str, tuple[Any, ...]] = {}
    for name, info in cls.model_fields.items():
        if name != "name" and info.annotation is bool:
            result[name] = (False, True)
        elif name != "name":
            options = [info.annotation] if get_origin(info.annotation) is Literal else get_args(info.annotation)
            values = [value for option in options if get_origin(option) is Literal for value in get_args(option)]
            if values and all(option is type(None) or get_origin(option) is Literal for option in options):
                result[name] = (*values, *([None] if type(None) in options else []))
    return result


def _block(cls: type[BlockSpec], registry: Registry) -> dict[str, Any]:
    """Return the wiring and `final_norm` for all values of the fields that they may depend on."""
    choices = _choices(cls)
    steps, final_norm = {}, {}
    for values in itertools.product(*choices.values()):
        spec = _smallest(cls, registry, **dict(zip(choices, values, strict=True)))
        if spec is None:
            continue
        key = _key(values)
        final_norm[key] = spec.final_norm
        if spec.wiring is not None:
            steps[key] = [asdict(step) for step in spec.wiring]
    return {"wiring": {"fields": list(choices), "steps": steps} if steps else None, "final_norm": final_norm}


def _key(values: Any) -> str:
    """Return values as JavaScript's `JSON.stringify` writes them."""
    return json.dumps(list(values), separators=(",", ":"), ensure_ascii=False)


def _limits(backend: AttentionBackendSpec) -> dict[str, str | None]:
    """Return what a backend calls each feature that it does not support; null for one that it supports."""
    features = {name: ScoreFeatures(**{name: True}) for name in _FEATURES}
    features["bias+score_function"] = ScoreFeatures(bias=True, score_function=True)
    return {name: backend.choice(each)[0].limitation(each) for name, each in features.items()}


def _sizes(cls: type[TokenizerSpec], registry: Registry) -> dict[str, Any]:
    """Return the number of token ids: of the defaults, and the field that sets it, if there is one."""

    def size(**fields: Any) -> int | None:
        spec = _smallest(cls, registry, **fields)
        return None if spec is None else spec.expected_vocab_size

    for name, values in _choices(cls).items():
        sizes = {json.dumps(value): size(**{name: value}) for value in values}
        if len(set(sizes.values()) - {None}) > 1:
            return {"size_field": name, "sizes": sizes}
    for name in ("vocab_size", "max_vocab"):
        if name in cls.model_fields and size(**{name: 777}) == 777:
            return {"size_field": name}
    return {"size": size()}


def _presets(registry: Registry) -> dict[str, dict[str, Any]]:
    """Return the presets with a model, as their files say, with what they extend."""
    result = {}
    for group, files in groups(registry).items():
        for name, path in files.items():
            data = read(path, (), shipped=shipped(registry)).root.plain()
            if isinstance(data, Mapping) and "model" in data:
                result[name] = {"group": group, "summary": summary(path), "spec": data}
    return result
