"""Components: an open tagged union that any distribution can extend.

A *kind* is an abstract subclass of `Component` that sets the class variable ``kind``; a *component* is a concrete
subclass of a kind with ``name: Literal["..."]``. A field annotated with a kind accepts every registered component of
that kind, written as a mapping with its ``name`` or, if its defaults suffice, as the name alone::

    class Example(Spec):
        norm: NormSpec = component("rms", description="Norm of the branch's input.")

    Example.model_validate({"norm": {"name": "layer", "eps": 1e-6}})
    Example.model_validate({"norm": "layer"})

The name is looked up when the value is validated, so plugins installed after the field was written are included.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, cast, get_args

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from gptkit.core.errors import GptkitError, Problem, RegistryError
from gptkit.core.spec import Spec, describe, fail

__all__ = ["Component", "Resolver", "component", "in_braces", "optional_component", "resolver_of", "set_default_resolver"]


class Resolver(Protocol):
    """Interface that returns components by name, implemented by `gptkit.core.registry.Registry`."""

    def component(self, kind: str, name: str) -> type[Component]:
        """Return the component's class; raise `RegistryError` if it does not exist."""
        ...

    def entry(self, kind: str, name: str) -> Any:
        """Return the registration of a component; raise `RegistryError` if it does not exist."""
        ...

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind's components, sorted."""
        ...

    def warn_renamed(self, old: str, new: str) -> None:
        """Warn that a former name was used."""
        ...


_default_resolver: Callable[[], Resolver] | None = None


def set_default_resolver(resolver: Callable[[], Resolver]) -> None:
    """Set the resolver for validation contexts without a ``registry``."""
    global _default_resolver
    _default_resolver = resolver


def resolver_of(context: Any) -> Resolver:
    """Return the resolver of a validation context: its ``registry``, or else the default one."""
    chosen = context.get("registry") if isinstance(context, Mapping) else None
    if chosen is not None:
        return cast("Resolver", chosen)
    if _default_resolver is None:
        raise RegistryError(
            "components cannot be looked up without a registry",
            hint="Import gptkit.kinds or gptkit.core.registry, or validate with context={'registry': …}.",
        )
    return _default_resolver()


class Component(Spec):
    """Base class of all kinds and components.

    Class variables a kind sets:
        kind: the kind's name, as in ``gptkit components KIND``. A class that sets it is a kind.
        runtime: the class that `build` returns, as ``module:Class``, if it is in another module: specs are
            validated without importing torch.
        builds_module: whether `build` must return a `torch.nn.Module`, as for the parts of a model.

    A kind may have a class method ``conformance_checks()`` that returns the `gptkit.testing.Check`s of its contract.

    Class variables a component may set:
        aliases: former names, which old specs may use (with a `DeprecationWarning`).
        renamed_fields: former field names, ``{"old": "new"}``, handled in the same way.
        examples: mappings of fields that the conformance kit builds; required if a field has no default.
        checked_with: parts of the model that the component requires, with which the conformance kit builds it,
            ``{"block": "publishing"}``: those that publish what it reads, for example.
        only_with: fields that have no effect unless another one is set, ``{"qk_norm_order": "qk_norm"}``; a spec that sets
            the first alone is valid, and ``gptkit check`` warns of it.
        formula: what it computes, in LaTeX, for its page: one formula a line, with ``\\qquad`` where a line may wrap.
            Without it, the page shows the docstring's section Formula as text.
    """

    kind: ClassVar[str]
    runtime: ClassVar[str] = ""
    builds_module: ClassVar[bool] = False
    aliases: ClassVar[tuple[str, ...]] = ()
    renamed_fields: ClassVar[Mapping[str, str]] = {}
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    checked_with: ClassVar[Mapping[str, Any]] = {}
    only_with: ClassVar[Mapping[str, str]] = {}
    formula: ClassVar[str] = ""

    name: str

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        for method in ("build", *_OPTIONAL_BUILDS):
            build = cls.__dict__.get(method)
            if callable(build) and not getattr(build, "__isabstractmethod__", False):
                setattr(cls, method, _checked(build, optional=method != "build"))

    @classmethod
    def is_kind(cls) -> bool:
        """Return whether this class is a kind, not a component."""
        return "kind" in cls.__dict__

    @classmethod
    def component_name(cls) -> str:
        """Return the name of the component in specs."""
        field = cls.model_fields["name"]
        names = get_args(field.annotation)
        if len(names) != 1 or not isinstance(names[0], str):
            undefined = f"{cls.__module__}.{cls.__qualname__} does not define a name"
            if isinstance(field.default, str):
                remedy = f'Declare it as `name: Literal["{field.default}"] = "{field.default}"`.'
                raise RegistryError(f"{undefined}: its field `name` is not a Literal of one text", hint=remedy)
            raise RegistryError(
                undefined, hint=f'Add a field `name: Literal["my-{getattr(cls, "kind", "name")}"] = "my-…"`.'
            )
        return names[0]

    def resolved(self, context: Any) -> Any:
        """Return this spec with the values that depend on the build context (a width of the model, for example).

        `context` is a `gptkit.kinds.context.BuildContext` for the parts of a model. Called when the spec is loaded, for this
        component and then for those in its fields. `gptkit show` prints the result, and a run stores it. The method must be
        idempotent. The default returns the spec unchanged.
        """
        return self

    def inner_context(self, field: str, context: Any) -> Any:
        """Return the build context in which `build` builds the component in a field, used to resolve and check it.

        The default is the context of this component.
        """
        return context

    def problems(self, context: Any) -> Iterator[Problem]:
        """Yield errors that depend on the build context, each with its path below this spec and the remedy.

        Called for the resolved spec before it is built, and for the components in its fields. The default yields none.
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
            return super().__get_pydantic_json_schema__(schema, handler)
        # Components nest, so the definition cannot be inlined; gptkit.reflect.schema replaces this by a reference.
        return {"x-kind": cls.kind}

    @classmethod
    def _validate_as_kind(cls, value: Any, info: core_schema.ValidationInfo) -> Component:
        if isinstance(value, cls) and not type(value).is_kind():
            return value
        if isinstance(value, str):
            fields: dict[str, Any] = {"name": value}
            path: tuple[str, ...] = ()
        elif isinstance(value, Mapping):
            fields = dict(value)
            path = ("name",)
        else:
            article = "an" if cls.kind[0] in "aeiou" else "a"
            raise PydanticCustomError(
                "component",
                "expected {article} {kind}: a name, or a mapping with a 'name', not {got}",
                {"article": article, "kind": cls.kind, "got": describe(value)},
            )
        resolver = resolver_of(info.context)
        name = fields.get("name")
        if not isinstance(name, str):
            known = ", ".join(resolver.names(cls.kind))
            if len(fields) == 1 and (only := next(iter(fields))) in resolver.names(cls.kind):
                fail(f"{cls.kind} has no 'name'; {in_braces(only)}", (), value)
            what = "has no 'name'" if name is None else "'name' is not a text"
            raise PydanticCustomError("component", f"{cls.kind} {what}; choose one of: {{known}}", {"known": known})
        try:
            chosen = resolver.component(cls.kind, name)
        except RegistryError as error:
            with_value = _WITH_VALUE.match(name)
            if with_value is not None and with_value[1] in resolver.names(cls.kind):
                fail(f"unknown {cls.kind} {name!r}; {in_braces(with_value[1])}", path, value)
            if _FILE.search(name) and (readers := _with_path(cls.kind, resolver)):
                listed = f"one of: {', '.join(readers)}" if len(readers) > 1 else readers[0]
                remedy = f"a file is given as its path: {{name: NAME, path: {name}}}, where NAME is {listed}"
                fail(f"unknown {cls.kind} {name!r}; {remedy}", path, value)
            fail(error.message, path, value)
        fields["name"] = chosen.component_name()
        for old, new in chosen.renamed_fields.items():
            if old in fields:
                resolver.warn_renamed(f"field {old!r} of {cls.kind} {chosen.component_name()!r}", new)
                fields.setdefault(new, fields.pop(old))
        return chosen.model_validate(fields, context=info.context)


_WITH_VALUE = re.compile(r"([\w.-]+)\s*[=:(\s]")
"""A component's name with a value behind it, as on the command line: ``temperature=0.8``."""


_FILE = re.compile(r"[/\\]|\.[A-Za-z]\w{0,7}$")
"""A path: with a directory, or with a suffix."""


def _with_path(kind: str, resolver: Resolver) -> list[str]:
    """Return the components of a kind that read a path."""
    readers = []
    for name in resolver.names(kind):
        with contextlib.suppress(RegistryError):
            if "path" in resolver.component(kind, name).model_fields:
                readers.append(name)
    return readers


def in_braces(name: str) -> str:
    """Return the remedy for a component whose fields are written in another form, such as ``temperature=0.8``."""
    return f"write its fields in braces, with its name: {{name: {name}, FIELD: VALUE}}"


_OPTIONAL_BUILDS = ("build_embedding", "build_stacked")
"""Methods of kinds that build a module, or return None."""


def _checked(build: Callable[..., Any], *, optional: bool) -> Callable[..., Any]:
    """Return `build` with a check of its result: None (unless it is optional) would cause an error later and elsewhere."""

    @functools.wraps(build)
    def checked(self: Component, *arguments: Any, **options: Any) -> Any:
        built = build(self, *arguments, **options)
        if built is None and optional:
            return None
        if built is None:
            raise RegistryError(
                f"{self.kind} {self.name!r}: {build.__module__}.{build.__qualname__} returned None",
                hint="Add the return statement.",
            )
        if self.builds_module:
            _require_module(self, build, built, arguments)
        return built

    return checked


def _require_module(spec: Component, build: Callable[..., Any], built: Any, arguments: tuple[Any, ...]) -> None:
    """Check that a part of a model is a module.

    Raises:
        RegistryError: it is not; names the component and its distribution.
    """
    torch = sys.modules.get("torch")  # not imported here, so that specs are read without it
    if torch is not None and isinstance(built, torch.nn.Module):
        return
    what = f"the class {built.__qualname__}" if isinstance(built, type) else f"a {type(built).__name__}"
    resolver = resolver_of({"registry": getattr(arguments[0], "registry", None)} if arguments else None)
    try:
        entry = resolver.entry(spec.kind, spec.name)
        owner = f" of {entry.plugin.provenance}" if entry.cls is type(spec) else ""
    except GptkitError:  # passed as an object, not registered
        owner = ""
    raise RegistryError(
        f"{spec.kind} {spec.name!r}{owner}: {build.__module__}.{build.__qualname__} returned {what}, not a torch.nn.Module",
        hint="Return an instance of a class that derives from torch.nn.Module.",
    )


def component(default: Any, *, description: str) -> Any:
    """Return a field for a component; `default` is its name or a mapping."""
    return Field(default=default, validate_default=True, description=description)


def optional_component(*, description: str) -> Any:
    """Return a field for an optional component, null by default."""
    return Field(default=None, description=description)


def _dump_component(value: Any, info: core_schema.SerializationInfo) -> Any:
    if not isinstance(value, Component):
        return value
    return value.model_dump(
        mode=cast("Any", info.mode),
        exclude_none=info.exclude_none,
        context=info.context,
    )
