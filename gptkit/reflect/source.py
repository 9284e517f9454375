"""Reader of classes in source files that are not imported: the runtime class of a contract imports torch."""

from __future__ import annotations

import ast
import inspect
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

__all__ = ["module_source", "signature"]


def module_source(module: str) -> str | None:
    """Return the source of a module; None if it is not found or has none. Neither it nor its packages are imported."""
    spec = _spec(module)
    get_source = getattr(spec.loader, "get_source", None) if spec is not None else None
    return get_source(module) if get_source is not None else None


def signature(function: ast.FunctionDef) -> inspect.Signature:
    """Return the signature of a function as `inspect.signature` does, with annotations and defaults as text."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    required = len(positional) - len(given.defaults)
    parameters = []
    for index, argument in enumerate(positional):
        kind = (
            inspect.Parameter.POSITIONAL_ONLY if index < len(given.posonlyargs) else inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        parameters.append(_parameter(argument, kind, given.defaults[index - required] if index >= required else None))
    if given.vararg:
        parameters.append(_parameter(given.vararg, inspect.Parameter.VAR_POSITIONAL))
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        parameters.append(_parameter(argument, inspect.Parameter.KEYWORD_ONLY, default))
    if given.kwarg:
        parameters.append(_parameter(given.kwarg, inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters, return_annotation=_text(function.returns))


class _Text:
    """Source text that is shown as it is, without the quotes of a string."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _text(expression: ast.expr | None) -> Any:
    return inspect.Signature.empty if expression is None else _Text(ast.unparse(expression))


def _parameter(argument: ast.arg, kind: Any, default: ast.expr | None = None) -> inspect.Parameter:
    return inspect.Parameter(argument.arg, kind, default=_text(default), annotation=_text(argument.annotation))


def _spec(module: str) -> ModuleSpec | None:
    if module in sys.modules:
        return sys.modules[module].__spec__
    package = module.rpartition(".")[0]
    above = _spec(package) if package else None
    if package and (above is None or above.submodule_search_locations is None):
        return None
    return PathFinder.find_spec(module, None if above is None else above.submodule_search_locations)
