"""Small texts for the checks."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["CORPUS", "TEXTS", "write_corpus"]

_STORY = (
    "The river had been low all summer, and the ferryman, who could read the water better than the papers, said that it "
    "would rise. It rose on the {0}th of {1}. By noon the lower meadow was gone; by evening {2} sheep waited on the mill's "
    "roof, and nobody could say how they had come there.\n\nif water > {0}:\n    print('run', {2} * 2)\n"
)
_MONTHS = ("May", "June", "July", "August", "October", "March")
CORPUS = [
    *(_STORY.format(4 + 2 * index, month, 7 + index) for index, month in enumerate(_MONTHS)),
    "Zwölf Boxkämpfer jagen Víctor über den Sylter Deich.\t你好，世界。 🙂\n",
]
"""The documents that tokenizers are fitted on."""

TEXTS = [
    "",
    " ",
    "the",
    "  the  sheep \n\n",
    CORPUS[0],
    "Zwölf\u00a0你好，世界。\r\n🙂👩\u200d👩\u200d👧 é e\u0301",
    "\x00\x1c\x85\u2028\ufeff\ufffd",
    "'x' is x -- 12345 + 3.5e-8 <tag> |end|",
]
"""Difficult texts for tokenizers, most of them unlike the corpus."""


def write_corpus(directory: Path) -> None:
    """Write a text file, a Markdown file and JSON lines."""
    directory.mkdir(parents=True)
    (directory / "first.txt").write_text(CORPUS[0] * 3, encoding="utf-8")
    (directory / "second.md").write_text(CORPUS[1], encoding="utf-8")
    lines = [json.dumps({"text": text}) for text in CORPUS[2:]]
    (directory / "third.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
