"""Sources with replaced expressions, in lines that fit into a written file."""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from dataclasses import dataclass
from typing import Any

from gptkit.ejection.lines import LINE

__all__ = ["CopyError", "Edits", "marked", "parsed", "reflowed", "unmarked"]


class CopyError(Exception):
    """A source cannot be copied; the message is the reason."""


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


def parsed(source: str) -> ast.AST:
    """Return the tree of a copied source, in which placeholders are names."""
    return ast.parse(marked(re.sub(r"\$\w+_arguments", "", source)))


_MARK = "ǂ"  # a letter that no source has


def marked(source: str) -> str:
    """Return a source in which placeholders are names."""
    return source.replace("$", _MARK)


def unmarked(source: str) -> str:
    """Return a source with its placeholders."""
    return source.replace(_MARK, "$")


def reflowed(source: str, indent: int = 4) -> str:
    """Return a source whose statements and comments fit into a line of the file; the writer breaks whole statements.

    Args:
        indent: columns by which the source is moved to the right in the file.
    """
    width = LINE - indent
    if all(len(line) <= width for line in source.splitlines()):
        return source
    source = marked(source)
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
    return unmarked("\n".join(kept)) + "\n"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
