"""Contract of a kind, derived from its class: the methods of a component, and the runtime class."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gptkit.core.component import Component
from gptkit.reflect import prose
from gptkit.reflect.source import module_source, signature

__all__ = ["ContractClass", "Member", "contract", "members", "runtime_classes", "spec_class"]

_SHARED = ("gptkit.kinds.context", "gptkit.kinds.written")
"""Modules with classes that most kinds name, which have pages of their own."""


@dataclass(frozen=True)
class Member:
    """A method or property of a contract.

    Attributes:
        head: its signature: ``factor(self, step: int, steps: int) -> float``.
        must: whether a component has to define it.
        doc: its docstring.
    """

    head: str
    must: bool
    doc: str


@dataclass(frozen=True)
class ContractClass:
    """A class of a contract.

    Attributes:
        doc: its own docstring, not an inherited one.
        members: the documented public methods and properties that it defines itself.
    """

    module: str
    name: str
    doc: str
    members: tuple[Member, ...]


def contract(kind: type[Component]) -> str:
    """Return the contract as Markdown: each method that a component defines or overrides, then the runtime class."""
    spec = spec_class(kind)
    parts = [f"In Python: `{spec.module}.{spec.name}`.", *_methods(spec)]
    for runtime in runtime_classes(kind):
        parts += [f"### {runtime.name}", prose.prose(runtime.doc), *_methods(runtime)]
    return "\n\n".join(part for part in parts if part)


def spec_class(kind: type[Component]) -> ContractClass:
    """Return the contract of the kind's components."""
    return _imported(kind)


def runtime_classes(kind: type[Component]) -> list[ContractClass]:
    """Return the kind's runtime class, then the classes of contracts that methods receive or return.

    The runtime class is read from its source file, since its module may import torch.
    """
    result: dict[str, ContractClass] = {}
    if kind.runtime:
        module_name, _, name = kind.runtime.partition(":")
        result[name] = _in_source(module_name, name) or _imported(getattr(importlib.import_module(module_name), name))
    module = vars(sys.modules[kind.__module__])
    waiting = [kind, *(value for name in result if isinstance(value := module.get(name), type))]
    for cls in waiting:
        for value in _named(cls, module):
            if value not in waiting:
                result[value.__name__] = _imported(value)
                waiting.append(value)
    return list(result.values())


def _named(cls: type[Any], module: Mapping[str, Any]) -> Iterator[type[Any]]:
    """Yield the classes of contracts that annotations of a class's methods name, as the kind's module has them."""
    for _, member in _public(cls):
        function = member.fget if isinstance(member, property) else inspect.unwrap(getattr(member, "__func__", member))
        if not inspect.isfunction(function):
            continue
        for word in re.findall(r"\w+", " ".join(map(str, function.__annotations__.values()))):
            value = module.get(word)
            if not isinstance(value, type) or issubclass(value, Component) or value.__module__ in _SHARED:
                continue
            if value.__module__ == module["__name__"] or value.__module__.startswith("gptkit.kinds."):
                yield value


def _methods(cls: ContractClass) -> Iterator[str]:
    for member in cls.members:
        yield f"`{member.head}`{' *(required)*' if member.must else ''}"
        # The body of a Markdown definition is indented below its head.
        yield "\n".join(f":   {line}" if not i else f"    {line}" for i, line in enumerate(_lines(member.doc)))


def _lines(text: str) -> list[str]:
    return prose.prose(text).splitlines() or [""]


def _imported(cls: type[Any]) -> ContractClass:
    """Read a class that is imported."""
    doc = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    return ContractClass(cls.__module__, cls.__qualname__, doc, tuple(members(cls)))


def members(cls: type[Any]) -> Iterator[Member]:
    """Yield the documented public methods and properties that an imported class itself defines."""
    for name, member in _public(cls):
        function = member.fget if isinstance(member, property) else inspect.unwrap(getattr(member, "__func__", member))
        if not inspect.isfunction(function) or not function.__doc__:
            continue
        if isinstance(member, property):
            head = f"{name}: {_annotation(function)}"
        else:
            head = f"{name}{str(inspect.signature(function)).replace(chr(39), '')}"
        yield Member(head, bool(getattr(member, "__isabstractmethod__", False)), inspect.cleandoc(function.__doc__))


def _public(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    for name, member in vars(cls).items():
        if _is_public(name):
            yield name, member


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name == "__call__"


def _annotation(function: Any) -> str:
    return str(function.__annotations__.get("return", "")).replace("'", "")


def _in_source(module: str, name: str) -> ContractClass | None:
    """Read a class from the source of its module; None if there is none."""
    for node in ast.parse(module_source(module) or "").body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return ContractClass(module, name, ast.get_docstring(node) or "", tuple(_members_in_source(node)))
    return None


def _members_in_source(cls: ast.ClassDef) -> Iterator[Member]:
    for node in cls.body:
        doc = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if not (isinstance(node, ast.FunctionDef) and doc and _is_public(node.name)):
            continue
        decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
        if "cached_property" in decorators:
            continue
        function = signature(node)
        head = f"{node.name}: {function.return_annotation!r}" if "property" in decorators else f"{node.name}{function}"
        yield Member(head.replace("'", ""), "abstractmethod" in decorators, doc)
