"""Sources of functions as they are copied into a written file: names that it does not have are replaced or refused."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from gptkit.ejection.context_argument import with_context
from gptkit.ejection.edits import CopyError, Edits, reflowed

__all__ = ["called_functions", "copied_source", "is_literal", "of_training", "placeholder"]

_ANNOTATIONS = {"Any", "Tensor", "bool", "dict", "float", "int", "list", "nn", "object", "str", "torch", "tuple", "type"}
"""Names that annotations of the file may have."""
_IGNORED = re.compile(r"  # (?:type: ignore|noqa)[^\n]*")


def is_literal(value: Any) -> bool:
    """Return whether the text of a value is an expression of it."""
    if isinstance(value, (tuple, list)):
        return type(value) in (tuple, list) and all(map(is_literal, value))
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return False
    return value is None or type(value) in (bool, int, float, str)


def copied_source(function: FunctionType, rule: Callable[[ast.AST, Edits], str | None], context: str | None = None) -> str:
    """Return the source of a function, with names of its module replaced by what the file has.

    Functions that have to be copied are replaced by placeholders of their names (`placeholder`).

    Args:
        rule: returns the replacement of an expression; None if it remains.
        context: name of the argument that is the forward context; by default the one whose annotation says so, or that is
            called `forward`. In the result it is ``forward: Context``.

    Raises:
        CopyError: it uses a name that the file does not have.
    """
    edits = Edits(with_context(function, _source(function), context))
    annotations = {id(node) for node in _annotations(edits.tree)}
    names = {id(node) for node in _loaded(edits.tree)}
    for node in edits.nodes():
        text = None
        if id(node) in annotations:
            text = _annotation(node)
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and _global(function, node.func.id) is typing.cast
        ):
            inner = edits.text(node.args[1])
            text = f"({inner})" if _is_open(node.args[1]) else inner
        elif isinstance(node, ast.Name) and id(node) in names:
            text = _name(function, node.id)
        else:
            text = rule(node, edits)
        if text is not None:
            edits.replace(node, text)
    return reflowed(_IGNORED.sub("", edits.text()))


def placeholder(name: str) -> str:
    """Return the placeholder of a function that is copied, without the dollar sign."""
    return f"called_{name.lstrip('_')}"


def called_functions(function: FunctionType, source: str) -> dict[str, FunctionType]:
    """Return the functions of its module whose placeholders a copied source has, by placeholder."""
    values = {placeholder(name): value for name, value in function.__globals__.items() if isinstance(value, FunctionType)}
    return {name: values[name] for name in re.findall(r"\$(called_\w+)", source)}


def _source(function: FunctionType) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise CopyError(f"the source of {function.__qualname__} is not available") from None
    if "$" in source:
        raise CopyError(f"the source of {function.__qualname__} has a dollar sign")
    if "__class__" in function.__code__.co_freevars:
        raise CopyError(f"{function.__qualname__} calls super")
    if function.__code__.co_freevars:
        raise CopyError(f"{function.__qualname__} uses {function.__code__.co_freevars[0]!r} of the function around it")
    return _on_lines(source)


def _on_lines(source: str) -> str:
    """Return the source of a function with every statement on lines of its own, as what reads it line by line requires."""
    tree, lines = ast.parse(source), source.splitlines()
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    shared = any(lines[node.lineno - 1].encode()[: node.col_offset].strip() for node in statements)
    return ast.unparse(tree) if shared else source


def _global(function: FunctionType, name: str) -> Any:
    return function.__globals__.get(name)


def _imported() -> Mapping[str, Any]:
    import math

    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    return {"torch": torch, "F": F, "nn": nn, "Tensor": Tensor, "math": math}


def _is_cast(function: FunctionType, called: ast.expr) -> bool:
    return isinstance(called, ast.Name) and _global(function, called.id) is typing.cast


def _annotation(node: ast.AST) -> str | None:
    """Return what replaces an annotation; None if the file has its names."""
    if ast.unparse(node) in ("Forward", "'Forward'"):
        return "Context"
    unknown = any(isinstance(each, ast.Name) and each.id not in _ANNOTATIONS for each in ast.walk(node))
    return "Any" if unknown or any(_is_string(each) for each in ast.walk(node)) else None


def _name(function: FunctionType, name: str) -> str | None:
    """Return the expression that replaces a global name; None if it remains.

    Raises:
        CopyError: the file does not have it.
    """
    value = _global(function, name)
    if _imported().get(name, value) is value and name in _imported():
        return None
    known = next((own for own, each in _imported().items() if each is value), None)
    if known is not None or value is typing.cast:
        return known
    if name in function.__globals__ and is_literal(value):
        return repr(value)
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or ""
    if module.partition(".")[0] == "torch":
        if isinstance(value, ModuleType):
            return module
        own = getattr(value, "__name__", "")
        if getattr(importlib.import_module(module), own, None) is value:
            return f"{module}.{own}"
    if not isinstance(value, FunctionType):
        raise CopyError(f"{function.__qualname__} uses {name!r}, which the file does not have")
    if name != value.__name__:
        raise CopyError(f"{function.__qualname__} uses {value.__qualname__} under the name {name!r}")
    return f"${placeholder(name)}"


def _annotations(tree: ast.AST) -> list[ast.expr]:
    result = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.AnnAssign, ast.arg)) and node.annotation is not None:
            result.append(node.annotation)
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            result.append(node.returns)
    return result


def _loaded(tree: ast.AST) -> list[ast.Name]:
    """Return the names that a function reads, and that are not built-in; annotations are not evaluated."""
    skipped = {id(inner) for node in _annotations(tree) for inner in ast.walk(node)}
    local = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    local |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    local |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and id(node) not in skipped
        and node.id not in local
        and not hasattr(builtins, node.id)
    ]


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_open(node: ast.AST) -> bool:
    return isinstance(node, (ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Lambda, ast.UnaryOp))


def of_training(node: ast.AST) -> str | None:
    """Return what replaces a statement that adds a loss, which training alone uses; None for others."""
    if isinstance(node, ast.Expr) and "forward.add_loss(" in ast.unparse(node):
        return "pass"
    if not isinstance(node, ast.If) or node.orelse or "self.training" not in ast.unparse(node.test):
        return None
    return "pass" if any(of_training(each) == "pass" for each in node.body) else None
