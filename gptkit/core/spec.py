"""Specs: frozen, documented, data-only descriptions; and the open tagged union that lets anyone add to them.

A *kind* is an abstract subclass of `Component` that sets the class variable ``kind``; a *component* is a concrete
subclass of a kind with ``name: Literal["..."]``. A field annotated with a kind accepts every registered component of
that kind, written as a mapping with its ``name`` or, where the defaults will do, as the name alone::

    class Example(Spec):
        norm: NormSpec = component("rms", description="Normalises the branch's input.")

    Example.model_validate({"norm": {"name": "layer", "eps": 1e-6}})
    Example.model_validate({"norm": "layer"})

The name is looked up when the value is validated, so plugins installed after the field was written count too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, PydanticKnownError, core_schema

from gptkit.core.errors import Problem, RegistryError

if TYPE_CHECKING:
    from gptkit.core.registry import Registry

__all__ = [
    "Component",
    "Spec",
    "component",
    "describe",
    "fail",
    "laid_over",
    "optional_component",
    "shortened",
    "validation_error",
]


def _only_numbers_for_numbers(schema: Any) -> Any:
    """The core schema with its numbers guarded: by itself pydantic takes `true` for 1 and the text "7" for 7."""
    if isinstance(schema, list):
        return [_only_numbers_for_numbers(item) for item in schema]
    if isinstance(schema, tuple):
        return tuple(_only_numbers_for_numbers(item) for item in schema)
    if not isinstance(schema, dict):
        return schema
    number = schema.get("type")
    if number in ("int", "float"):
        refuse = _refuse_whole if number == "int" else _refuse_real
        return core_schema.no_info_before_validator_function(refuse, cast("CoreSchema", schema))
    # Keys of mappings stay as pydantic has them: JSON knows texts only there, so {"7": …} stands for {7: …}.
    as_is = ("metadata", "keys_schema")
    return {key: value if key in as_is else _only_numbers_for_numbers(value) for key, value in schema.items()}


def laid_over(field: FieldInfo, given: Any) -> Any:
    """A field's value as it is read: a mapping without a name lies over the component that is there by default."""
    if not isinstance(given, Mapping) or "name" in given:
        return given
    if isinstance(field.default, str) and _holds_components(field.annotation):
        return {"name": field.default, **given}
    if isinstance(field.default, Mapping) and "name" in field.default:
        return {**field.default, **given}
    return given


def _holds_components(annotation: Any) -> bool:
    return any(
        isinstance(part, type) and issubclass(part, Component) and part.is_kind()
        for part in (annotation, *get_args(annotation))
    )


def _refuse_whole(value: Any) -> Any:
    if isinstance(value, (bool, str, bytes)):
        raise PydanticKnownError("int_type")
    return value


def _refuse_real(value: Any) -> Any:
    if isinstance(value, (bool, str, bytes)):
        raise PydanticKnownError("float_type")
    return value


class Spec(BaseModel):
    """Base of everything written in a spec file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )

    def replace(self, **changes: Any) -> Any:
        """A copy with some fields changed, validated anew."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate({**values, **changes})

    @model_validator(mode="before")
    @classmethod
    def _lay_over_defaults(cls, value: Any) -> Any:
        """A mapping without a name changes fields of the component that is there by default."""
        if not isinstance(value, Mapping):
            return value
        laid = {name: laid_over(field, value[name]) for name, field in cls.model_fields.items() if name in value}
        return {**value, **laid}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return cast("CoreSchema", _only_numbers_for_numbers(handler(source)))


class Component(Spec):
    """Base of all kinds, and so of all components.

    Class variables a kind sets:
        kind: the kind's name, as in ``gptkit components KIND``. Setting it is what makes a class a kind.
        runtime: the class that `build` returns, as ``module:Class``, where that class is in another module: specs are
            validated without importing torch.

    A kind may have a class method ``conformance_checks()`` that returns `gptkit.testing.Check`s of its own promises.

    Class variables a component may set:
        aliases: former names that old specs still load with (a `DeprecationWarning` says the new one).
        renamed_fields: former field names, ``{"old": "new"}``, treated the same way.
        examples: mappings of fields that the conformance kit builds; give some where the defaults do not suffice.
        expected_failures: checks of the conformance kit that it is known to fail, by name, each with the reason.
    """

    kind: ClassVar[str]
    runtime: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    renamed_fields: ClassVar[Mapping[str, str]] = {}
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    expected_failures: ClassVar[Mapping[str, str]] = {}

    name: str

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        build = cls.__dict__.get("build")
        if callable(build) and not getattr(build, "__isabstractmethod__", False):
            setattr(cls, "build", _something(build))  # noqa: B010

    @classmethod
    def is_kind(cls) -> bool:
        """Whether this class is a kind itself and not a component of one."""
        return "kind" in cls.__dict__

    @classmethod
    def component_name(cls) -> str:
        """The name this component is chosen by."""
        names = get_args(cls.model_fields["name"].annotation)
        if len(names) != 1 or not isinstance(names[0], str):
            raise RegistryError(
                f"{cls.__module__}.{cls.__qualname__} has no name of its own",
                hint=f'Give it a field `name: Literal["my-{getattr(cls, "kind", "name")}"] = "my-…"`.',
            )
        return names[0]

    def resolved(self, context: Any) -> Any:
        """This spec with everything written out that depends on its surroundings (a width left to the model, say).

        `context` is a `gptkit.kinds.context.BuildContext` for the parts of a model. Called once, when the spec is
        loaded; the result is what `gptkit show` prints and what a run stores. The default changes nothing.
        """
        return self

    def problems(self, context: Any) -> Iterator[Problem]:
        """Errors that depend on the build context, each with its path below this spec and the remedy.

        Called on the resolved spec, before anything is built. The default yields none.
        """
        yield from ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if not cls.is_kind():
            return super().__get_pydantic_core_schema__(source, handler)
        return core_schema.with_info_plain_validator_function(
            cls._validate_as_kind,
            serialization=core_schema.plain_serializer_function_ser_schema(_dump_component, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        if not cls.is_kind():
            return handler(schema)
        # Components nest, so no definition can stand here; gptkit.reflect.schema turns this into a reference to the kind's.
        return {"x-kind": cls.kind}

    @classmethod
    def _validate_as_kind(cls, value: Any, info: core_schema.ValidationInfo) -> Component:
        if isinstance(value, cls) and not type(value).is_kind():
            return value
        if isinstance(value, str):
            fields: dict[str, Any] = {"name": value}
            place: tuple[str, ...] = ()
        elif isinstance(value, Mapping):
            fields = dict(value)
            place = ("name",)
        else:
            article = "an" if cls.kind[0] in "aeiou" else "a"
            raise PydanticCustomError(
                "component",
                "expected {article} {kind}: a name, or a mapping with a 'name', not {got}",
                {"article": article, "kind": cls.kind, "got": describe(value)},
            )
        registry = _registry(info.context)
        name = fields.get("name")
        if not isinstance(name, str):
            known = ", ".join(registry.names(cls.kind))
            what = "has no 'name'" if name is None else "'name' is not a text"
            raise PydanticCustomError("component", f"{cls.kind} {what}; choose one of: {{known}}", {"known": known})
        try:
            found = registry.component(cls.kind, name)
        except RegistryError as error:
            fail(error.message, place, value)
        fields["name"] = found.component_name()
        for old, new in found.renamed_fields.items():
            if old in fields:
                registry.warn_renamed(f"field {old!r} of {cls.kind} {found.component_name()!r}", new)
                fields.setdefault(new, fields.pop(old))
        return found.model_validate(fields, context=info.context)


def _something(build: Callable[..., Any]) -> Callable[..., Any]:
    """`build`, which says so where it returns nothing: a model that holds a None fails later, and elsewhere."""

    @functools.wraps(build)
    def checked(self: Component, *arguments: Any, **options: Any) -> Any:
        built = build(self, *arguments, **options)
        if built is None:
            raise RegistryError(
                f"{self.kind} {self.name!r}: {build.__module__}.{build.__qualname__} returned None",
                hint="Let it return what it builds.",
            )
        return built

    return checked


def component(default: Any, *, description: str) -> Any:
    """A field that holds a component, `default` being its name or a mapping."""
    return Field(default=default, validate_default=True, description=description)


def optional_component(*, description: str) -> Any:
    """A field that may hold a component and holds none by default."""
    return Field(default=None, description=description)


def fail(message: str, path: tuple[str | int, ...] = (), value: Any = None) -> NoReturn:
    """Raise the error that pydantic merges into its report, at `path` below the spec being validated."""
    raise validation_error([Problem(path, message)], value)


def validation_error(problems: Iterable[Problem], value: Any = None) -> ValidationError:
    """The pydantic error that reports each problem at its own path."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("spec", "{message}", {"message": problem.message}), loc=problem.path, input=value
        )
        for problem in problems
    ]
    return ValidationError.from_exception_data("spec", details)


def _dump_component(value: Any, info: core_schema.SerializationInfo) -> Any:
    if not isinstance(value, Component):
        return value
    return value.model_dump(
        mode=cast("Any", info.mode),
        exclude_none=info.exclude_none,
        context=info.context,
    )


def shortened(text: str, limit: int = 60) -> str:
    """The text, cut off where it would drown the message that it is part of."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def describe(value: Any) -> str:
    """A value in an error message: ``the number 5``, ``the text 'x'``, ``a list``."""
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


def _registry(context: Any) -> Registry:
    chosen = context.get("registry") if isinstance(context, Mapping) else None
    if chosen is not None:
        return cast("Registry", chosen)
    # The one upward import: the union asks the registry, and only when something is validated.
    from gptkit.core.registry import default_registry

    return default_registry()
