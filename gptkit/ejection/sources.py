"""Sources of functions as they are copied into a written file: names that it does not have are replaced or refused."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import io
import re
import textwrap
import tokenize
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from gptkit.ejection.lines import LINE

__all__ = ["CopyError", "Edits", "called_functions", "copied_source", "is_literal", "parsed", "placeholder", "reflowed"]

_ANNOTATIONS = {"Any", "Tensor", "bool", "dict", "float", "int", "list", "nn", "object", "str", "torch", "tuple", "type"}
"""Names that annotations of the file may have."""
_IGNORED = re.compile(r"  # (?:type: ignore|noqa)[^\n]*")


class CopyError(Exception):
    """A source cannot be copied; the message is the reason."""


def is_literal(value: Any) -> bool:
    """Return whether the text of a value is an expression of it."""
    if isinstance(value, (tuple, list)):
        return type(value) in (tuple, list) and all(map(is_literal, value))
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return False
    return value is None or type(value) in (bool, int, float, str)


@dataclass
class Edits:
    """Replacements of expressions in a source, by their nodes."""

    source: str

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.source)
        lines = self.source.splitlines(keepends=True)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))
        self._lines = lines
        self._replaced: dict[tuple[int, int], str] = {}

    def place(self, node: ast.AST) -> tuple[int, int]:
        """Return the indices of a node's first character and of the one after its last."""
        where: Any = node
        return self._index(where.lineno, where.col_offset), self._index(where.end_lineno, where.end_col_offset)

    def nodes(self) -> list[ast.AST]:
        """Return the nodes that have a place, inner ones first."""
        placed = [node for node in ast.walk(self.tree) if hasattr(node, "end_lineno")]
        return sorted(placed, key=lambda node: (lambda place: place[1] - place[0])(self.place(node)))

    def _index(self, line: int, column: int) -> int:
        # The parser counts bytes.
        characters = len(self._lines[line - 1].encode()[:column].decode())
        return self._starts[line - 1] + characters

    def replace(self, node: ast.AST, text: str) -> None:
        """Replace a node; replacements inside it are then discarded."""
        self._replaced[self.place(node)] = text

    def text(self, node: ast.AST | None = None) -> str:
        """Return the source of a node, or all of it, with the replacements."""
        first, last = (0, len(self.source)) if node is None else self.place(node)
        inside = sorted(
            (
                span
                for span in self._replaced
                if first <= span[0] and span[1] <= last and (node is None or span != (first, last))
            ),
            key=lambda span: (span[0], -span[1]),
        )
        result, at = "", first
        for begin, end in inside:
            if begin >= at:
                result += self.source[at:begin] + self._replaced[begin, end]
                at = end
        return result + self.source[at:last]


def copied_source(function: FunctionType, rule: Callable[[ast.AST, Edits], str | None]) -> str:
    """Return the source of a function, with names of its module replaced by what the file has.

    Functions that have to be copied are replaced by placeholders of their names (`placeholder`).

    Args:
        rule: returns the replacement of an expression; None if it remains.

    Raises:
        CopyError: it uses a name that the file does not have.
    """
    edits = Edits(_source(function))
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


def parsed(source: str) -> ast.AST:
    """Return the tree of a copied source, in which placeholders are names."""
    return ast.parse(_marked(re.sub(r"\$\w+_arguments", "", source)))


_MARK = "ǂ"  # a letter that no source has


def _marked(source: str) -> str:
    """Return a source in which placeholders are names."""
    return source.replace("$", _MARK)


def reflowed(source: str, indent: int = 4) -> str:
    """Return a source whose statements and comments fit into a line of the file; the writer breaks whole statements.

    Args:
        indent: columns by which the source is moved to the right in the file.
    """
    width = LINE - indent
    if all(len(line) <= width for line in source.splitlines()):
        return source
    source = _marked(source)
    edits = Edits(source)
    lines = source.splitlines()
    for node in ast.walk(edits.tree):
        simple = isinstance(node, ast.stmt) and not hasattr(node, "body") and not _is_text(node)
        if simple and any(len(line) > width for line in lines[node.lineno - 1 : node.end_lineno]):  # type: ignore[attr-defined]
            edits.replace(node, ast.unparse(node))
    result = edits.text()
    texts = {
        line
        for node in ast.walk(ast.parse(result))
        if isinstance(node, ast.Expr) and _is_text(node)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    tokens = tokenize.generate_tokens(io.StringIO(result).readline)
    comments = {token.start[0]: token.start[1] for token in tokens if token.type == tokenize.COMMENT}
    kept: list[str] = []
    for number, line in enumerate(result.splitlines(), 1):
        margin = line[: len(line) - len(line.lstrip())]
        if len(line) <= width or (number not in texts and number not in comments):
            kept.append(line)
        elif number in texts:
            kept += textwrap.wrap(line.strip(), width, initial_indent=margin, subsequent_indent=margin)
        else:  # a comment moves to the lines above
            code, comment = line[: comments[number]].rstrip(), line[comments[number] :].lstrip("# ")
            kept += textwrap.wrap(comment, width, initial_indent=f"{margin}# ", subsequent_indent=f"{margin}# ")
            kept += [code] if code else []
    return "\n".join(kept).replace(_MARK, "$") + "\n"


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
    return source


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


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_open(node: ast.AST) -> bool:
    return isinstance(node, (ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Lambda, ast.UnaryOp))
