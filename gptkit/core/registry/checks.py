"""Checks of what a plugin's hooks return, each with the reason for which it is refused."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import FunctionType
from typing import Any

from pydantic import BaseModel

from gptkit.core.component import Component
from gptkit.core.errors import RegistryError
from gptkit.core.lazy import LazyComponent
from gptkit.core.registry.plugin import Entry

__all__ = ["as_components", "as_kinds", "check_component", "check_kind", "check_lazy"]

_METHODS = (FunctionType, classmethod, staticmethod)
_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


def as_kinds(returned: Any) -> list[type[Component]]:
    """Return what `gptkit_kinds` returned as a list of classes.

    Raises:
        RegistryError: it is not a list of spec classes.
    """
    kinds = _as_list(returned, "gptkit_kinds")
    for item in kinds:
        _require_spec_class(item, "gptkit_kinds returned")
    return kinds


def as_components(returned: Any) -> list[type[Component] | LazyComponent]:
    """Return what `gptkit_components` returned as a list of classes and lazy components.

    Raises:
        RegistryError: it is not a list of these.
    """
    components = _as_list(returned, "gptkit_components")
    for item in components:
        if not isinstance(item, LazyComponent):
            _require_spec_class(item, "gptkit_components returned")
    return components


def check_kind(cls: type[Component]) -> None:
    """Raise `RegistryError` if a class is not a kind with a valid name."""
    where = _where(cls)
    if not cls.is_kind():
        raise RegistryError(f"{where} is not a kind: it does not set the class variable `kind`")
    if not _NAME.fullmatch(cls.kind):
        raise RegistryError(f"{where}: kind {cls.kind!r} must be lower-case words joined by hyphens")


def check_component(cls: type[Component], kinds: Mapping[str, Entry]) -> None:
    """Raise if a class is not a complete component of a registered kind.

    Raises:
        RegistryError: the class breaks a rule of the registry.
        Exception: pydantic's, for a field that it cannot validate. Schemas are built on first use; here, so that the plugin
            is named.
    """
    where = _where(cls)
    if cls.is_kind():
        raise RegistryError(f"{where} is a kind; return it from gptkit_kinds")
    if not hasattr(cls, "kind") or cls.kind not in kinds:
        raise RegistryError(f"{where} belongs to no registered kind")
    if not issubclass(cls, kinds[cls.kind].cls):
        raise RegistryError(f"{where} is not a subclass of the registered kind {cls.kind!r}")
    name = cls.component_name()
    _check_name(where, name)
    if cls.model_fields["name"].default != name:
        raise RegistryError(f'{where}: give the name its default, `name: Literal["{name}"] = "{name}"`')
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise RegistryError(f"{where} does not implement {', '.join(missing)}")
    _check_fields(where, cls)
    for method in sorted(getattr(kinds[cls.kind].cls, "__abstractmethods__", ())):
        _check_signature(where, cls, kinds[cls.kind].cls, method)
    cls.model_rebuild()


def _check_fields(where: str, cls: type[Component]) -> None:
    """Reject fields with the names of methods, properties and class variables, which gptkit would read in their place."""
    for field in cls.model_fields:
        base = next((each for each in cls.__mro__[1:] if field in vars(each)), None)
        if base is BaseModel and not field.startswith("model_"):
            continue  # former names of pydantic's methods, such as `copy`, which nothing calls
        for what, types in (("method", _METHODS), ("property", (property, cached_property))):
            if base is not None and isinstance(vars(base)[field], types):
                replaced = f"a {what} of {base.__name__}"
                raise RegistryError(f"{where}: the field {field!r} replaces {replaced}; give it another name")
        if field in Component.__class_vars__:
            raise RegistryError(f"{where}: the field {field!r} replaces a class variable; give it another name")
    for variable in ("aliases", "examples"):
        if not isinstance(getattr(cls, variable), (tuple, list)):
            raise RegistryError(f"{where}: {variable} is a {type(getattr(cls, variable)).__name__}, not a tuple")


def _check_signature(where: str, cls: type[Component], kind: type[Component], method: str) -> None:
    """Reject a method that cannot be called as its kind declares it."""
    declared, own = getattr(kind, method), getattr(cls, method)
    if not (isinstance(declared, FunctionType) and callable(own)):
        return
    parameters = [each for each in inspect.signature(declared).parameters.values() if each.default is each.empty]
    positional = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    named = {each.name: None for each in parameters if each.kind is each.KEYWORD_ONLY}
    try:
        inspect.signature(own).bind(*positional, **named)
    except TypeError as error:
        call = ", ".join([*positional[1:], *(f"{name}=…" for name in named)])
        raise RegistryError(f"{where}: {method} is called as {method}({call}), and does not accept this: {error}") from None


def check_lazy(lazy: LazyComponent, kinds: Mapping[str, Entry]) -> None:
    """Raise `RegistryError` if what a lazy component declares breaks a rule; its class is checked when it is imported."""
    if lazy.kind not in kinds:
        raise RegistryError(f"{lazy.location} is declared as {lazy.kind!r}, which is not a registered kind")
    _check_name(lazy.location, lazy.name)


def _as_list(returned: Any, hook: str) -> list[Any]:
    if isinstance(returned, (str, bytes, Mapping)) or not isinstance(returned, Iterable):
        raise RegistryError(f"{hook} returned {type(returned).__name__}, not a list of spec classes")
    return list(returned)


def _require_spec_class(item: Any, what: str) -> None:
    if not (isinstance(item, type) and issubclass(item, Component)):
        raise RegistryError(f"{what} {item!r:.80}, which is not a subclass of gptkit.kinds' base classes")


def _check_name(where: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RegistryError(f"{where}: the name {name!r} must be lower-case words joined by hyphens")


def _where(cls: type[Component]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
