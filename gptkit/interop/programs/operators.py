"""Operators of a traced program, and the reasons why a model cannot be traced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from gptkit.core.errors import ExternalModelError

__all__ = ["caller", "calls", "checked", "reason"]

_NAMESPACES = frozenset({"aten", "prim", "prims"})
"""Namespaces of the operators that torch registers; others exist only where their library is imported."""


def checked(program: Any, consequence: str) -> Any:
    """Return a program (`torch.export.ExportedProgram`) if it consists of operators of torch.

    Args:
        program: the program.
        consequence: what follows from another operator, as the end of a sentence.

    Raises:
        ExternalModelError: it has an operator of another library; names it and the module that calls it.
    """
    for node in calls(program.graph_module):
        namespace = getattr(node.target, "namespace", None)
        if isinstance(node.target, torch._ops.OpOverload) and namespace not in _NAMESPACES:
            raise ExternalModelError(
                f"{caller(node)} calls the operator {node.target}, which torch does not have, so that {consequence}",
                hint="Export to another format, or compute it with operators of torch where "
                "torch.compiler.is_exporting() is true.",
            )
    return program


def calls(graph: GraphModule) -> Iterator[Node]:
    """Yield the calls of operators of a graph, those within nested graphs too."""
    for module in graph.modules():
        if isinstance(module, GraphModule):
            yield from (node for node in module.graph.nodes if node.op == "call_function")


def caller(node: Node) -> str:
    """Return the module of the model that a call comes from, with the name of its class."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "the model"
    path, cls = stack[-1][:2]
    name = cls if isinstance(cls, str) else cls.__qualname__
    return f"{str(path).removeprefix('model.') or 'the model'} ({name.rpartition('.')[2]})"


_SPECIALIZED = re.compile(r"marked \w+ as dynamic but your code specialized it to be a constant \((\d+)\)")
"""What torch says of a size that may vary, where the traced code has one value of it."""

_COLORS = re.compile(r"\x1b\[[\d;]*m")
"""Codes with which torch colors its messages in a terminal."""


def reason(error: BaseException, model: nn.Module) -> str:
    """Return the module of a model in whose code an error was raised, if it was, and the error's first line with content."""
    where = _raised_in(error, model)
    return _first_line(error) if where is None else f"{where}: {_first_line(error)}"


def _raised_in(error: BaseException | None, model: nn.Module) -> str | None:
    """Return the innermost module in the traceback of an error, or of its causes."""
    names = {id(module): name for name, module in model.named_modules() if name}
    result = None
    while error is not None and result is None:
        traceback = error.__traceback__
        while traceback is not None:
            module = traceback.tb_frame.f_locals.get("self")
            if id(module) in names:
                result = f"{names[id(module)]} ({type(module).__qualname__})"
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__
    return result


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in _COLORS.sub("", str(error)).splitlines() if line.strip()]
    detail = next((line for line in lines[1:] if line.startswith("- ")), "")
    text = " ".join([*lines[:1], detail.removeprefix("- ")]).strip() or type(error).__name__
    fixed = _SPECIALIZED.search(str(error))
    if fixed is not None:
        seen = f"a component uses the number of tokens of the traced call, {fixed[1]}"
        return f"{seen}, as a fixed number, which a loop over tokens does"
    return text if len(text) <= 300 else text[:297] + "…"
