"""JSON Schema of spec files with the installed components, for completion and validation in editors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from gptkit.core.component import Component
from gptkit.core.registry import Registry, default_registry
from gptkit.reflect import docstring
from gptkit.reflect.schema_cache import WRITTEN_BY

__all__ = ["json_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(spec_class: type[BaseModel], registry: Registry | None = None) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the files that describe `spec_class`.

    A component is written as a name or as a mapping with its fields. The definition of a kind, such as ``kind.norm``, is
    therefore a choice between the names and one object per component, with ``name`` as the discriminator. The name is
    optional, as in entries of `layers` and with `extends`, where another file or section may provide it. Components nest,
    so they refer to kinds by reference. Former names of components and fields still load, but are not part of the schema.

    Args:
        spec_class: the class of the whole file.
        registry: the components to describe; the installed ones by default.
    """
    registry = default_registry() if registry is None else registry
    components = {
        (kind, name): entry.cls for kind in registry.kinds() for name, entry in sorted(registry.entries(kind).items())
    }
    references, definitions = _generate([spec_class, *components.values()])
    for cls in [*components.values(), spec_class]:
        _describe(_target(references[cls], definitions), cls)
    for kind, entry in registry.kinds().items():
        choices = [(name, cls) for (of_kind, name), cls in components.items() if of_kind == kind]
        definitions[f"kind.{kind}"] = _kind(entry.cls, choices, references)
    root = _target(references[spec_class], definitions)
    schema = {"$schema": DIALECT, "$comment": WRITTEN_BY, **_as_file(root), "$defs": dict(sorted(definitions.items()))}
    _refer_to_kinds(schema)
    return schema


class _Generator(GenerateJsonSchema):
    # A default that JSON cannot represent is omitted.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def field_title_should_be_set(self, schema: Any) -> bool:
        # A title such as "D Model" adds nothing to d_model.
        return False


def _generate(classes: Sequence[type[BaseModel]]) -> tuple[dict[type[BaseModel], dict[str, Any]], dict[str, Any]]:
    """Return a schema for each class, mostly references, and the shared definitions; pydantic makes their names unique."""
    unique = list(dict.fromkeys(classes))
    try:
        made, whole = _schemas(unique)
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        made, whole = _schemas([cls for cls in unique if not issubclass(cls, Component) or _has_schema(cls)])
    references: dict[Any, dict[str, Any]] = {cls: schema for (cls, _), schema in made.items()}
    for cls in classes:
        if cls not in references:
            references[cls] = _any_fields(cls)
    return references, whole.get("$defs", {})


def _schemas(classes: Sequence[type[BaseModel]]) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    return models_json_schema([(cls, "validation") for cls in classes], schema_generator=_Generator)


def _has_schema(cls: type[BaseModel]) -> bool:
    """Return whether a component's fields have a schema: third-party components may use types without one."""
    try:
        cls.model_json_schema(schema_generator=_Generator)
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return False
    return True


def _any_fields(cls: type[BaseModel]) -> dict[str, Any]:
    assert issubclass(cls, Component)
    return {"type": "object", "properties": {"name": {"const": cls.component_name()}}}


def _target(schema: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    target: dict[str, Any] = schema if reference is None else definitions[reference.removeprefix("#/$defs/")]
    return target


def _describe(schema: dict[str, Any], cls: type[BaseModel]) -> None:
    """Set the description to the first sentence of the docstring."""
    sentence = docstring.parse(cls.__doc__).summary
    if sentence:
        schema["description"] = sentence
    schema.pop("title", None)


def _kind(
    cls: type[Component], choices: Sequence[tuple[str, type[Component]]], references: Mapping[type[BaseModel], Any]
) -> dict[str, Any]:
    names = {
        "enum": [name for name, _ in choices],
        "enumDescriptions": [docstring.parse(component.__doc__).summary for _, component in choices],
    }
    return {
        "description": docstring.parse(cls.__doc__).summary,
        "anyOf": [names, *(references[component] for _, component in choices)],
    }


def _refer_to_kinds(schema: Any) -> None:
    """Replace the markers of fields that take a kind by references to the kind's definition, in place."""
    if isinstance(schema, dict):
        kind = schema.pop("x-kind", None)
        if kind is not None:
            schema["$ref"] = f"#/$defs/kind.{kind}"
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _refer_to_kinds(inner)


def _as_file(root: Mapping[str, Any]) -> dict[str, Any]:
    """Return the root schema with the keys of files; with `extends`, required keys may be in the other file."""
    schema = dict(root)
    properties = {
        "$schema": {"type": "string", "description": "For editors; ignored."},
        "extends": {"type": "string", "description": "Another spec file, or a shipped spec's name, that this one changes."},
        **schema.get("properties", {}),
    }
    schema["properties"] = properties
    required = schema.pop("required", None)
    if required:
        schema["anyOf"] = [{"required": required}, {"required": ["extends"]}]
    return schema
