"""The forward context among the arguments of copied functions: named and annotated alike, or removed."""

from __future__ import annotations

import ast
from types import FunctionType

from gptkit.ejection.edits import CopyError, Edits, marked, reflowed, unmarked

__all__ = ["with_context", "without_context"]

_CONTEXT = "forward"
"""Name of the forward context among the arguments of copied functions."""


def without_context(source: str) -> str | None:
    """Return a copied method without its argument ``forward: Context``; None if it reads the argument."""
    tree = ast.parse(marked(source))
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    statements = ast.Module(function.body, [])
    if any(isinstance(node, ast.Name) and node.id == _CONTEXT for node in ast.walk(statements)):
        return None
    argument = next((each for each in _arguments(function) if each.arg == _CONTEXT), None)
    if argument is None:
        return source
    lines = marked(source).splitlines()
    first = function.body[0].lineno - 1
    body = "\n".join(lines[first:])
    function.args = _without(function.args, argument)
    function.body = [ast.Pass()]
    header = ast.unparse(function).rpartition("\n")[0]
    return reflowed(unmarked(f"{header}\n{body}\n"))


def _without(arguments: ast.arguments, argument: ast.arg) -> ast.arguments:
    """Return the arguments of a function without one, and without its default."""
    ordered = [*arguments.posonlyargs, *arguments.args]
    n_required = len(ordered) - len(arguments.defaults)
    defaults = [each for index, each in enumerate(arguments.defaults) if ordered[n_required + index] is not argument]
    arguments.posonlyargs = [each for each in arguments.posonlyargs if each is not argument]
    arguments.args = [each for each in arguments.args if each is not argument]
    arguments.defaults = defaults
    return arguments


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def with_context(function: FunctionType, source: str, context: str | None) -> str:
    """Return a source in which the forward context among the arguments is ``forward: Forward``."""
    edits = Edits(source)
    definition = edits.tree.body[0] if isinstance(edits.tree, ast.Module) else None
    if not isinstance(definition, ast.FunctionDef):
        return source
    for argument in _arguments(definition):
        annotation = None if argument.annotation is None else ast.unparse(argument.annotation).strip("'\"")
        named = context == argument.arg if context is not None else argument.arg == _CONTEXT and annotation is None
        if not named and annotation not in ("Forward", "gptkit.nn.forward.Forward"):
            continue
        own = argument.arg
        names = [node for node in ast.walk(definition) if isinstance(node, ast.Name)]
        taken = {node.id for node in names} | {node.arg for node in ast.walk(definition) if isinstance(node, ast.arg)}
        if own != _CONTEXT and _CONTEXT in taken:
            raise CopyError(f"{function.__qualname__} uses {_CONTEXT!r} for something else than the forward context")
        edits.replace(argument, f"{_CONTEXT}: Forward")
        for node in names:
            if node.id == own != _CONTEXT:
                edits.replace(node, _CONTEXT)
    return edits.text()
