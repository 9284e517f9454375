"""Report terms that gptkit avoids: ``python tools/wording.py [PATH…]``.

The terms and the paths that are checked are in ``wording.toml`` beside this file. Names in code are checked like prose.
Docstrings of Python files must not begin with a verb in the third person.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".css", ".html", ".js", ".md", ".py", ".tmpl", ".yaml", ".yml"}


@dataclass(frozen=True)
class Term:
    """A term to avoid.

    Attributes:
        pattern: matches the term.
        allowed: matches text in which the term is correct, or None.
        write: the standard terms to use instead.
        not_in: suffixes of files in which the term is correct, such as a name of the language.
    """

    pattern: re.Pattern[str]
    allowed: re.Pattern[str] | None
    write: str
    not_in: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Hit:
    """An occurrence of an avoided term."""

    path: str
    line: int
    text: str
    write: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}; write: {self.write}"


def terms(data: dict[str, Any]) -> list[Term]:
    """Compile the terms of a parsed word list."""
    return [
        Term(
            _compile([str(entry["avoid"])]),
            _compile(list(entry["except"])) if "except" in entry else None,
            str(entry["write"]),
            frozenset(entry.get("not_in", ())),
        )
        for entry in data["term"]
    ]


def _compile(patterns: list[str]) -> re.Pattern[str]:
    # Words may be separated by a line break.
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)".replace(" ", r"\s+"), re.IGNORECASE)


def check_text(text: str, words: Sequence[Term]) -> Iterator[tuple[int, Term, str]]:
    """Yield line, term and matched text of each avoided term in a file's text."""
    # Comment signs, quotes and underscores separate the words of one sentence or name.
    readable = re.sub(r"""["'#_]""", " ", text)
    for term in words:
        searched = readable
        if term.allowed is not None:
            searched = term.allowed.sub(lambda match: re.sub(r"\S", " ", match[0]), readable)
        for match in term.pattern.finditer(searched):
            yield searched.count("\n", 0, match.start()) + 1, term, " ".join(match[0].split())


def check_docstrings(text: str, verbs: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield line and first word of each docstring that begins with one of the verbs."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first = node.value.value.split(maxsplit=1)[:1]
            if first and first[0] in verbs:
                yield node.lineno, first[0]


def check_names(text: str, names: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield line and name of each variable or argument that has one of the names."""
    for node in ast.walk(ast.parse(text)):
        name = node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else getattr(node, "arg", None)
        if name in names:
            yield getattr(node, "lineno", 1), str(name)


def tracked(paths: Sequence[str]) -> list[Path]:
    """Return the text files at or below the given paths that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [ROOT / name for name in sorted(listed) if Path(name).suffix in SUFFIXES and (ROOT / name).is_file()]


def check(paths: Sequence[str] = ()) -> list[Hit]:
    """Return the avoided terms in the given paths, or in those that the word list names as clean."""
    data = tomllib.loads((ROOT / "tools" / "wording.toml").read_text(encoding="utf-8"))
    selected = list(paths) or data["clean"]
    words = terms(data)
    hits = []
    for path in tracked(selected) if selected else []:
        name = path.relative_to(ROOT).as_posix()
        if name in data["excluded"]:
            continue
        text = path.read_text(encoding="utf-8")
        hits += [
            Hit(name, line, match, term.write)
            for line, term, match in check_text(text, words)
            if path.suffix not in term.not_in
        ]
        if name.endswith((".py", ".py.tmpl")) and name.startswith(tuple(data["imperative"])):
            code = re.sub(r"\$\{?(\w+)\}?", r"\1", text) if path.suffix == ".tmpl" else text
            hits += [
                Hit(name, line, word, "the imperative or a noun phrase")
                for line, word in check_docstrings(code, data["verbs"].split())
            ]
        if path.suffix == ".py" and name.startswith(tuple(data["names_clean"])):
            hits += [Hit(name, line, word, "a name of the content") for line, word in check_names(text, data["names"])]
    return sorted(hits, key=lambda hit: (hit.path, hit.line))


def main(arguments: Sequence[str]) -> int:
    """Print the avoided terms; return exit status 1 if any were found."""
    hits = check(arguments)
    for hit in hits:
        print(hit)  # noqa: T201
    return 1 if hits else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
