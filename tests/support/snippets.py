"""Fenced blocks of the handwritten pages: what each of them is, and the command lines in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from gptkit.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix().removesuffix(".md"): path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]
}
PROGRAMS = {"curl", "gptkit", "gptkit-lm-eval", "make", "pip", "pytest", "python", "tensorboard", "torchrun", "wandb"}
"""Programs that the pages call."""

_FENCE = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")?[^\n]*\n(.*?)^\1```', re.MULTILINE | re.DOTALL)
_LANGUAGES = {"yaml": "spec", "yml": "external", "python": "python", "toml": "data", "json": "data"}
_SHELLS = {"bash", "sh", "shell", "console"}
_END = {"|", ">", "&&", ">>", "2>", "&", "<"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the page's path below the root, without its suffix.
        number: its place among the blocks of the page.
        line: the line of its fence.
        end: the line of the fence that ends it.
        language: as written behind the fence; may be empty.
        title: the file that it is, where the page says so.
        text: the content.
    """

    page: str
    number: int
    line: int
    end: int
    language: str
    title: str | None
    text: str

    @property
    def first(self) -> str:
        """The first line that is not empty."""
        return next((line.strip() for line in self.text.splitlines() if line.strip()), "")

    @property
    def role(self) -> str:
        """What it is: spec, external, python, data, script, commands or output.

        Raises:
            AssertionError: the language is none of those that the tests handle.
        """
        if self.language in _LANGUAGES:
            return _LANGUAGES[self.language]
        if self.language in _SHELLS and self.text.startswith("#!"):
            return "script"
        if self.language in _SHELLS:
            return "commands"
        assert self.language in ("", "text"), f"{self}: tests/support/snippets.py has no rule for this language"
        programs = [program(line) for line in command_lines(self.text)]
        return "commands" if programs and all(name in PROGRAMS for name in programs) else "output"

    def __str__(self) -> str:
        return f"{self.page}.md:{self.line}"


def blocks(page: str | None = None) -> list[Block]:
    """Return the blocks of a page, or of all pages, in order."""
    if page is None:
        return [block for name in PAGES for block in blocks(name)]
    text = PAGES[page].read_text(encoding="utf-8")
    return [
        Block(
            page, number, _line(text, match.start()), _line(text, match.end()), match[2], match[3], textwrap.dedent(match[4])
        )
        for number, match in enumerate(_FENCE.finditer(text))
    ]


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def command_lines(text: str) -> list[str]:
    """Return the command lines of a block, without prompts, comments and empty lines; continued lines are joined."""
    lines = [line.strip().removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def program(line: str) -> str:
    """Return the program that a command line calls; assignments before it are skipped."""
    return next((word for word in line.split() if not re.match(r"\w+=", word)), "")


def words(line: str) -> list[str]:
    """Return the words of a command up to a pipe or redirection, without assignments before it."""
    every = shlex.split(line, comments=True)
    while every and re.match(r"\w+=", every[0]):
        every.pop(0)
    return every[: next((index for index, word in enumerate(every) if word in _END), None)]


def gptkit_commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of every command of gptkit in the fenced blocks of a text, `torchrun -m gptkit` included."""
    for match in _FENCE.finditer(text):
        if match[2] not in {"", "text", *_SHELLS}:
            continue
        for line in match[4].replace("\\\n", " ").splitlines():
            called = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:torchrun .* -m )?gptkit ((?:-|[a-z]).*)", line)
            if called and not re.match(r"[\w.]+:|\d|\S+ \d+ms", called[1]):
                yield words(called[1])


def parse(arguments: list[str]) -> None:
    """Parse the arguments of gptkit, without running the command.

    Raises:
        AssertionError: the command does not exist.
        click.exceptions.UsageError: an option or argument is refused.
    """
    group: Any = typer.main.get_group(app)
    context = typer.Context(group, info_name="gptkit")
    while hasattr(group, "list_commands") and arguments:
        if arguments[0] in ("--help", "--version", "-h", "--install-completion"):
            return
        command = group.get_command(context, arguments[0])
        assert command is not None, f"no such command: {arguments[0]}"
        group, arguments = command, arguments[1:]
        if not hasattr(group, "list_commands"):
            group.make_context(group.name, arguments, parent=context)
