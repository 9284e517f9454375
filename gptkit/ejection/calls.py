"""What a method does with the attributes of its module, read from its syntax tree."""

from __future__ import annotations

import ast
from typing import Any

__all__ = ["attribute_of_self", "is_value", "times_called"]


def attribute_of_self(node: ast.AST) -> str | None:
    """Return the name of an attribute ``self.NAME``; None for other expressions."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None


def is_value(node: ast.AST, tree: ast.AST) -> bool:
    """Return whether an attribute may be called under another name: not if it is called, read, or compared where it is."""
    parent = next(each for each in ast.walk(tree) if any(child is node for child in ast.iter_child_nodes(each)))
    if isinstance(parent, (ast.Call, ast.If, ast.While, ast.IfExp)):
        if isinstance(parent, ast.Call):
            called = ast.unparse(parent.func)
            return node is not parent.func and called not in ("isinstance", "hasattr", "getattr", "len")
        return node is not parent.test
    return not isinstance(parent, (ast.Attribute, ast.Compare, ast.UnaryOp, ast.BoolOp))


def times_called(node: ast.AST, tree: ast.AST, module: Any) -> int:
    """Return how often a method executes a call, in loops over a constant range; 0 if that is not known."""
    times = 1
    for loop in ast.walk(tree):
        if isinstance(loop, ast.If) and any(inner is node for inner in ast.walk(loop)):
            return 0
        if not isinstance(loop, (ast.For, ast.While)) or not any(inner is node for inner in ast.walk(loop)):
            continue
        call = loop.iter if isinstance(loop, ast.For) else None
        if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "range" and len(call.args) == 1):
            return 0
        count = call.args[0]
        value = count.value if isinstance(count, ast.Constant) else vars(module).get(attribute_of_self(count) or "")
        if type(value) is not int:
            return 0
        times *= value
    return times
