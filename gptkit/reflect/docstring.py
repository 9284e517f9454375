"""Parsing of a component's docstring: one sentence, prose, and the sections Formula, Shapes, Paper and Notes."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

__all__ = ["SECTIONS", "Docstring", "parse"]

SECTIONS = ("Formula", "Shapes", "Paper", "Notes")

_HEADER = re.compile(rf"({'|'.join(SECTIONS)}):[ \t]*(.*)")
_SENTENCE = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.!?])\s+(?=[A-Z`(])")


@dataclass(frozen=True)
class Docstring:
    """Parts of a docstring. A missing part is empty.

    Attributes:
        summary: the first sentence, on one line.
        body: the text after it, up to the first of the known sections; includes other sections unchanged.
        sections: the known sections by name, without their indentation.
    """

    summary: str
    body: str = ""
    sections: dict[str, str] = field(default_factory=dict)


def parse(text: str | None) -> Docstring:
    """Return the parts of a docstring in its source form (indented, or None)."""
    plain: list[str] = []
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in inspect.cleandoc(text or "").splitlines():
        header = _HEADER.fullmatch(line)
        if header:
            current = sections.setdefault(header[1], [])
            current.append(header[2])
        elif current is not None and (not line or line[0].isspace()):
            current.append(line)
        else:
            # Back at the margin: the section has ended.
            current = None
            plain.append(line)
    first, _, rest = "\n".join(plain).strip().partition("\n\n")
    sentences = _SENTENCE.split(" ".join(first.split()), maxsplit=1)
    body = "\n\n".join(part.strip("\n") for part in (*sentences[1:], rest) if part.strip())
    return Docstring(
        summary=sentences[0],
        body=body,
        sections={name: _dedent(lines) for name, lines in sections.items()},
    )


def _dedent(lines: list[str]) -> str:
    # The text after "Formula:" is on the header's line; only the lines below share an indentation.
    own, below = lines[0], inspect.cleandoc("\n".join(["", *lines[1:]]))
    return "\n".join(part for part in (own, below) if part).strip()
