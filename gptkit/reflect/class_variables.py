"""Class variables of a class, with the strings that document them in its source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["ClassVariable", "class_variables"]


@dataclass(frozen=True)
class ClassVariable:
    """A class variable.

    Attributes:
        name: its name.
        default: its value, as Python spells it.
        doc: the string below its definition, or its line under "Class variables:" in the class's docstring.
    """

    name: str
    default: str
    doc: str


def class_variables(cls: type[Any]) -> Iterator[ClassVariable]:
    """Yield the class variables that a class itself defines and documents."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    listed = _listed(cls.__dict__.get("__doc__") or "")
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        doc = listed.get(node.target.id, "")
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            doc = str(after.value.value)
        if doc:
            default = "required" if node.value is None else ast.unparse(node.value)
            yield ClassVariable(node.target.id, default, " ".join(doc.split()))


def _listed(docstring: str) -> dict[str, str]:
    """Return the entries of the section "Class variables:", by name."""
    _, _, section = inspect.cleandoc(docstring).partition("Class variables:\n")
    result: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if line.startswith("    ") and not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            result[name] = text
        elif name:
            result[name] = f"{result[name]} {line.strip()}"
    return result
