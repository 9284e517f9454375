"""Input fields of samplers, from the schemas of the registered ones."""

from __future__ import annotations

from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from gptkit.core.registry import Registry, default_registry
from gptkit.kinds.sampler import SamplerSpec
from gptkit.reflect import docstring

__all__ = ["sampler_forms"]

_BOUNDS = {"minimum": "minimum", "exclusiveMinimum": "minimum", "maximum": "maximum", "exclusiveMaximum": "maximum"}
_SIMPLE = ("number", "integer", "boolean", "string")


def sampler_forms(registry: Registry | None = None) -> list[dict[str, Any]]:
    """Return each registered sampler with the fields of its form, those of plugins included.

    A field has `name`, `type` (number, integer, boolean, string, choice, or json for all else), `nullable`, `description`,
    and where they exist `default`, `minimum`, `maximum` and `choices`.

    Args:
        registry: where samplers are looked up; by default what is installed.
    """
    registry = default_registry() if registry is None else registry
    return [
        {"name": name, "summary": docstring.parse(entry.cls.__doc__).summary, "fields": _fields(entry.cls)}
        for name, entry in sorted(registry.entries("sampler").items())
        if issubclass(entry.cls, SamplerSpec)
    ]


def _fields(cls: type[SamplerSpec]) -> list[dict[str, Any]]:
    try:
        schema = cls.model_json_schema()
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        # A third-party sampler may have types without a schema; they are written as JSON.
        schema = {"properties": {name: {} for name in cls.model_fields}}
    return [_field(name, each) for name, each in schema.get("properties", {}).items() if name != "name"]


def _field(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    nullable = "anyOf" in schema and len(options) < len(schema["anyOf"])
    inner = options[0] if len(options) == 1 else {}
    form: dict[str, Any] = {"name": name, "nullable": nullable, "description": schema.get("description", "")}
    if "enum" in inner and not nullable and all(isinstance(choice, str) for choice in inner["enum"]):
        form |= {"type": "choice", "choices": inner["enum"]}
    elif inner.get("type") in _SIMPLE and not (nullable and inner["type"] in ("string", "boolean")):
        form["type"] = inner["type"]
    else:
        form["type"] = "json"
    for key, bound in _BOUNDS.items():
        if key in inner:
            form[bound] = inner[key]
    if "default" in schema:
        form["default"] = schema["default"]
    return form
