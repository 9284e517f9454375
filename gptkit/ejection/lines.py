"""Lines of Python: types of what modules return, and long lines broken as a formatter breaks them."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator

__all__ = ["LINE", "typed", "wrapped"]

LINE = 100
"""Longest line of a written file."""


OPERATORS = ((" or ", " and "), (" + ", " - "), (" * ", " / ", " @ "))
"""Where a value is broken, weakest operators first."""
_DEPTH = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
_RETURNED = re.compile(r"( +)return ((?:self\.(\w+)|conv)\(.*)$")
_ASSIGNED = re.compile(r"( +)(\w+) = (self\.(\w+)\(.*)$")
_TARGETS = re.compile(r" +(\w+(?:, \w+)*) = ")
_STRING = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'""")
_SHAPES = re.compile(r"\(([A-Z][A-Z0-9, ]*)\)")


def typed(lines: Iterable[str]) -> list[str]:
    """Return the lines of a class or function with the type of what modules return, which `nn.Module` does not declare.

    A line is a whole statement.
    """
    lines = list(lines)
    methods = set(re.findall(r"^    def (\w+)\(self", "\n".join(lines), flags=re.M))
    return list(_typed(lines, methods))


def _typed(lines: list[str], methods: set[str]) -> Iterator[str]:
    known: set[str] = set()
    returns_tensor, result = False, "y"
    for line in lines:
        if line.lstrip().startswith("def "):
            known = set(re.findall(r"(\w+):", line))
            returns_tensor, result = line.endswith("-> Tensor:"), "y"
        elif result == "y" and line.lstrip().startswith('"""'):
            shapes = _SHAPES.findall(line)
            result = f"y_{shapes[-1].replace(', ', '')}" if shapes else "y"
        returned, assigned = _RETURNED.match(line), _ASSIGNED.match(line)
        if returns_tensor and returned and returned[3] not in methods and _is_whole(returned[2]):
            name = "result" if result in known else result
            yield f"{returned[1]}{name}: Tensor = {returned[2]}"
            yield f"{returned[1]}return {name}"
        elif (
            returns_tensor and assigned and assigned[4] not in methods and assigned[2] not in known and _is_call(assigned[3])
        ):
            known.add(assigned[2])
            yield f"{assigned[1]}{assigned[2]}: Tensor = {assigned[3]}"
        else:
            others = _TARGETS.match(line)
            known |= set(others[1].split(", ")) if others else set()
            yield line


def _is_whole(text: str) -> bool:
    """Return whether the brackets of a text are closed in it."""
    return all(text.count(first) == text.count(last) for first, last in ("()", "[]", "{}"))


def _is_call(text: str) -> bool:
    """Return whether a text is one call, whose brackets end with it; a comment may follow."""
    text = text.partition("  #")[0]
    depth = 0
    for index, character in enumerate(text):
        depth += _DEPTH.get(character, 0)
        if character == ")" and depth == 0:
            return index == len(text) - 1
    return False


def wrapped(line: str) -> list[str]:
    """Return a statement on as few lines as fit: whole, its last bracket's content on a line, or one line for each item.

    A statement that cannot be broken without another meaning stays whole.
    """
    if len(line) <= LINE:
        return [line]
    broken = _wrapped(line)
    if '"""' in line:
        return broken
    tree = _tree(line)
    return broken if tree is None or _tree("\n".join(broken)) == tree else [line]


def _tree(source: str) -> str | None:
    """Return the syntax tree of a statement, or of the first line of a compound one, as text; None of other lines."""
    source = textwrap.dedent(source)
    try:
        return ast.dump(ast.parse(f"{source} pass" if source.endswith(":") else source))
    except SyntaxError:
        return None


def _wrapped(line: str) -> list[str]:
    if '"""' in line:
        return _docstring(line)
    if line.lstrip().startswith("#"):
        start = f"{line[: len(line) - len(line.lstrip())]}# "
        return textwrap.wrap(line.lstrip("# "), LINE, initial_indent=start, subsequent_indent=start)
    broken = _broken(line)
    if max(map(len, broken)) > LINE:
        # A formatter adds parentheses where the statement has no brackets to break at.
        broken = _parenthesized(line) or broken
    return broken


def _broken(line: str) -> list[str]:
    """Return a statement broken at its last outermost brackets, or at earlier ones if a line stays too long before those."""
    fallback = [line]
    for first, last in _brackets(line):
        broken = _broken_at(line, first, last)
        if max(map(len, broken)) <= LINE:
            return broken
        fallback = broken if fallback == [line] else fallback
    return fallback


def _broken_at(line: str, first: int, last: int) -> list[str]:
    """Return a statement whose bracket from `first` to `last` has lines of its own."""
    indent = " " * (len(line) - len(line.lstrip()))
    start, inner, end = line[: first + 1], line[first + 1 : last], indent + line[last:]
    body = f"{indent}    {inner}"
    signature = start.lstrip().startswith("def ")
    if len(body) <= LINE and not inner.endswith(","):
        return [start, body, end] if _items(inner) else [line]
    items = _items(inner)
    if len(items) == 1 and not signature:
        # What a comprehension collects and its clauses; a single argument has no comma after it.
        pieces = _operands(inner, (" for ",))
        return [start, *(text for piece in pieces for text in _item(f"{indent}    {piece}")), end]
    return [start, *(text for item in items for text in _item(f"{indent}    {item},")), end]


def _item(line: str) -> list[str]:
    """Return what is in brackets on as few lines as fit; sums and products break before their operators."""
    broken = wrapped(line)
    if max(map(len, broken)) <= LINE:
        return broken
    indent = line[: len(line) - len(line.lstrip())]
    for operators in OPERATORS:
        pieces = _operands(line.lstrip(), operators)
        if len(pieces) > 1:
            return [text for piece in pieces for text in wrapped(f"{indent}{piece}")]
    return broken


def _parenthesized(line: str) -> list[str]:
    """Return a statement whose value is in parentheses, broken at its commas or operators; empty if it has none."""
    code, _, comment = line.partition("  # ")
    indent = " " * (len(code) - len(code.lstrip()))
    start = re.match(r" *(?:return |[\w., :\[\]|]+ = )", code)
    if start is None:
        return []
    value = code[start.end() :]
    items = _items(value)
    pieces = [f"{item}," for item in items]
    for operators in OPERATORS:
        if len(pieces) > 1:
            break
        pieces = _operands(value, operators)
    if len(pieces) < 2 and len(indent) + 4 + len(value) > LINE:
        return []
    above = [f"{indent}# {comment}"] if comment else []
    inner = [text for piece in pieces for text in wrapped(f"{indent}    {piece}")]
    return [*above, f"{start[0]}(", *inner, f"{indent})"]


def _operands(text: str, operators: tuple[str, ...]) -> list[str]:
    """Split before the operators outside of brackets; each operand but the first begins with its operator."""
    pieces, depth, begin = [], 0, 0
    code = _without_strings(text)
    for index, character in enumerate(code):
        depth += _DEPTH.get(character, 0)
        if depth == 0 and code.startswith(operators, index) and index > begin:
            pieces.append(text[begin:index])
            begin = index + 1
    return [*pieces, text[begin:]]


def _docstring(line: str) -> list[str]:
    """Return a docstring, or its first line, on several lines; other lines with quotes as they are."""
    text, indent = line.strip(), line[: len(line) - len(line.lstrip())]
    if not text.startswith('"""'):
        return [line]
    if text.count('"""') == 1:  # the first line of a longer one
        return textwrap.wrap(text, LINE, initial_indent=indent, subsequent_indent=indent)
    return [*textwrap.wrap(text[:-3], LINE, initial_indent=indent, subsequent_indent=indent), f'{indent}"""']


def _brackets(line: str) -> list[tuple[int, int]]:
    """Return the indices of the outermost pairs of brackets that have content, last first; those of a signature alone."""
    result: list[tuple[int, int]] = []
    depth = first = 0
    for index, character in enumerate(_without_strings(line)):
        change = _DEPTH.get(character, 0)
        first = index if change == 1 and depth == 0 else first
        depth += change
        if change == -1 and depth == 0 and index > first + 1:
            result.append((first, index))
            if line.lstrip().startswith("def "):
                break
    return result[::-1]


def _items(text: str) -> list[str]:
    """Split at the commas outside of brackets; what a comprehension collects and its clauses are one item."""
    if len(_operands(text, (" for ",))) > 1:
        return [text.strip()]
    items, depth, begin = [], 0, 0
    for index, character in enumerate(_without_strings(text)):
        depth += _DEPTH.get(character, 0)
        if character == "," and depth == 0:
            items.append(text[begin:index].strip())
            begin = index + 1
    return [*items, text[begin:].strip()] if text[begin:].strip() else items


def _without_strings(text: str) -> str:
    """Return a text of the same length, without what strings in it contain."""
    return _STRING.sub(lambda string: "x" * len(string[0]), text)
