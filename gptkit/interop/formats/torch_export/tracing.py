"""Tracing of a `Decoder` to a program that consists of torch's own operators."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.torch_export.decoder import Decoder, has_recurrence
from gptkit.ops.grouped import in_torch_operators

__all__ = ["Traced", "trace"]

_CHUNK = 64
"""Tokens that a recurrence computes at once; the number of chunks is fixed in a program, so it is one."""
_EXAMPLE = 7
_NAMESPACES = frozenset({"aten", "prim", "prims"})
"""Namespaces of the operators that torch registers; others exist only where their library is imported."""


@dataclass(frozen=True)
class Traced:
    """A traced decoder.

    Attributes:
        program: the program (`torch.export.ExportedProgram`).
        tokens: largest number of tokens of a call.
        problem: why a call has one token only, although several were tried; None if they were not, or could be traced.
    """

    program: Any
    tokens: int
    problem: str | None = None


def trace(decoder: Decoder, capacity: int, tokens: int | None) -> Traced:
    """Trace a decoder for any number of tokens of a call up to `tokens`.

    Args:
        decoder: the decoder.
        capacity: largest number of tokens of a text.
        tokens: largest number of tokens of a call; None for as many as can be traced.

    Raises:
        ExternalModelError: a component cannot be traced, or an operator is not torch's own; gives component and reason.
    """
    most = tokens
    if most is None:
        most = min(capacity, _CHUNK) if has_recurrence(decoder.model) else capacity
    try:
        return Traced(_checked(_exported(decoder, most)), most)
    except ExternalModelError:
        raise
    except Exception as error:  # whatever torch or a component raises
        problem = _reason(error)
        if most == 1 or tokens is not None:
            remedy = "Set tokens=1, for a program that takes one token at a time." if most > 1 else None
            raise ExternalModelError(
                f"the model cannot be traced for calls of up to {most} tokens: {problem}", hint=remedy
            ) from None
    try:
        return Traced(_checked(_exported(decoder, 1)), 1, problem)
    except ExternalModelError:
        raise
    except Exception as error:
        raise ExternalModelError(f"the model cannot be traced: {_reason(error)}") from None


def _exported(decoder: Decoder, most: int) -> Any:
    device = decoder.model.device
    example = (
        torch.zeros(1, min(_EXAMPLE, most), dtype=torch.long, device=device),
        torch.zeros((), dtype=torch.long, device=device),
    )
    varies = {1: torch.export.Dim("T", min=1, max=most)} if most > 1 else {}
    with warnings.catch_warnings(), torch.no_grad(), in_torch_operators():
        warnings.simplefilter("ignore")
        return torch.export.export(decoder, example, dynamic_shapes={"ids": varies, "position": None}, strict=False)


def _checked(program: Any) -> Any:
    """Return the program if torch alone can load it.

    Raises:
        ExternalModelError: it has an operator of another library; names it and the module that calls it.
    """
    for node in _calls(program.graph_module):
        namespace = getattr(node.target, "namespace", None)
        if isinstance(node.target, torch._ops.OpOverload) and namespace not in _NAMESPACES:
            raise ExternalModelError(
                f"{_caller(node)} calls the operator {node.target}, which torch does not have, so that the program could "
                "not be loaded by torch alone",
                hint="Export to another format, or compute it with operators of torch where "
                "torch.compiler.is_exporting() is true.",
            )
    return program


def _calls(graph: GraphModule) -> Iterator[Node]:
    for module in graph.modules():
        if isinstance(module, GraphModule):
            yield from (node for node in module.graph.nodes if node.op == "call_function")


def _caller(node: Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "the model"
    path, cls = stack[-1][:2]
    name = cls if isinstance(cls, str) else cls.__qualname__
    return f"{str(path).removeprefix('model.') or 'the model'} ({name.rpartition('.')[2]})"


def _reason(error: Exception) -> str:
    """Return the first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = next((line for line in lines[1:] if line.startswith("- ")), "")
    text = " ".join([*lines[:1], detail.removeprefix("- ")]).strip() or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "…"
