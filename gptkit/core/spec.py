"""Specs: frozen, documented, data-only descriptions, and their validation errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, cast, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, PydanticKnownError, core_schema

from gptkit.core import html
from gptkit.core.errors import Problem
from gptkit.core.yaml import dump_yaml, one_line_yaml

__all__ = ["Spec", "describe", "fail", "merge_with_default", "shortened", "validation_error"]

LINE = 110
"""The longest component that is printed on one line."""


def _with_strict_numbers(schema: Any) -> Any:
    """Return the core schema with strict numbers: by default, pydantic accepts `true` as 1 and the text "7" as 7."""
    if isinstance(schema, list):
        return [_with_strict_numbers(item) for item in schema]
    if isinstance(schema, tuple):
        return tuple(_with_strict_numbers(item) for item in schema)
    if not isinstance(schema, dict):
        return schema
    number = schema.get("type")
    if number in ("int", "float"):
        guard = _require_int if number == "int" else _require_float
        return core_schema.no_info_before_validator_function(guard, cast("CoreSchema", schema))
    # Keys of mappings keep pydantic's conversion: JSON has only text keys, so {"7": …} means {7: …}.
    unchanged = ("metadata", "keys_schema")
    return {key: value if key in unchanged else _with_strict_numbers(value) for key, value in schema.items()}


def _require_int(value: Any) -> Any:
    if isinstance(value, (bool, str, bytes)):
        raise PydanticKnownError("int_type")
    return value


def _require_float(value: Any) -> Any:
    if isinstance(value, (bool, str, bytes)):
        raise PydanticKnownError("float_type")
    return value


class Spec(BaseModel):
    """Base class of everything in a spec file: frozen, without unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        defer_build=True,  # A class that is never validated, such as a kind, costs no schema.
    )

    @classmethod
    def is_kind(cls) -> bool:
        """Return whether this class is a kind: a field annotated with it accepts any of its components."""
        return False

    def __repr__(self) -> str:
        """The spec as YAML: a component on one line where it fits, everything else in blocks."""
        data = self.model_dump(mode="json")
        line = one_line_yaml(data) if "name" in data else ""
        return line if 0 < len(line) <= LINE else dump_yaml(data).rstrip("\n")

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """The spec in a notebook."""
        return html.code(repr(self))

    def replace(self, **changes: Any) -> Any:
        """Return a copy with some fields changed; the copy is validated again."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate({**values, **changes})

    @model_validator(mode="before")
    @classmethod
    def _merge_defaults(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        emptied = {name for name, field in cls.model_fields.items() if value.get(name, 0) is None and _is_section(field)}
        given = {name: each for name, each in value.items() if name not in emptied}
        merged = {name: merge_with_default(field, given[name]) for name, field in cls.model_fields.items() if name in given}
        return {**given, **merged}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return cast("CoreSchema", _with_strict_numbers(handler(source)))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        properties = handler.resolve_ref_schema(described).get("properties", {})
        for name, field in cls.model_fields.items():
            if name in properties and _is_section(field):
                remarks = {key: properties[name].pop(key) for key in ("description", "default") if key in properties[name]}
                properties[name] = {**remarks, "anyOf": [properties[name], {"type": "null"}]}
        return described


def merge_with_default(field: FieldInfo, given: Any) -> Any:
    """Return the value of a field, merged with the field's default if it names no component.

    A mapping without a ``name`` overrides fields of the default component; any other value is returned as it is.
    """
    if not isinstance(given, Mapping) or "name" in given:
        return given
    if isinstance(field.default, str) and _holds_components(field.annotation):
        return {"name": field.default, **given}
    if isinstance(field.default, Mapping) and "name" in field.default:
        return {**field.default, **given}
    return given


def _is_section(field: FieldInfo) -> bool:
    """Return whether a field holds a spec and has a default, which an empty section then means."""
    if field.is_required() or field.default is None:
        return False
    parts = (field.annotation, *get_args(field.annotation))
    return type(None) not in parts and any(isinstance(part, type) and issubclass(part, Spec) for part in parts)


def _holds_components(annotation: Any) -> bool:
    return any(
        isinstance(part, type) and issubclass(part, Spec) and part.is_kind() for part in (annotation, *get_args(annotation))
    )


def fail(message: str, path: tuple[str | int, ...] = (), value: Any = None) -> NoReturn:
    """Raise an error that pydantic merges into its report, at `path` below the spec that is validated."""
    raise validation_error([Problem(path, message)], value)


def validation_error(problems: Iterable[Problem], value: Any = None) -> ValidationError:
    """Return the pydantic error with each problem at its path."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("spec", "{message}", {"message": problem.message}), loc=problem.path, input=value
        )
        for problem in problems
    ]
    return ValidationError.from_exception_data("spec", details)


def shortened(text: str, limit: int = 60) -> str:
    """Return the text, truncated for a message."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def describe(value: Any) -> str:
    """Describe a value for an error message: ``the number 5``, ``the text 'x'``, ``a list``."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {shortened(value)!r}"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        return "a mapping"
    return f"a {type(value).__name__}"
