"""Commands on handwritten and generated pages: the parser of the command line accepts them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from gptkit.cli.main import app
from gptkit.core.registry import Registry
from gptkit.docs import command_line
from gptkit.docs.pages import pages

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
AFTER = {"|", ">", "&&", ">>", "2>", "&", "<"}
SHELLS = {"", "bash", "sh", "text", "console"}


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of every command of gptkit in the fenced blocks of a page."""
    for _, language, block in FENCE.findall(text):
        if language not in SHELLS:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            match = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:torchrun .* -m )?gptkit ((?:-|[a-z]).*)", line)
            if match and not re.match(r"[\w.]+:|\d|\S+ \d+ms", match[1]):
                words = shlex.split(match[1], comments=True)
                cut = next((index for index, word in enumerate(words) if word in AFTER), None)
                yield words[:cut]


def parse(words: list[str]) -> None:
    """Parse a command line, without running it."""
    group: Any = typer.main.get_group(app)
    context = typer.Context(group, info_name="gptkit")
    while hasattr(group, "list_commands") and words:
        if words[0] in ("--help", "--version", "-h", "--install-completion"):
            return
        command = group.get_command(context, words[0])
        assert command is not None, f"no such command: {words[0]}"
        group, words = command, words[1:]
        if not hasattr(group, "list_commands"):
            group.make_context(group.name, words, parent=context)


BLOCKS = [
    pytest.param(words, id=f"{path.stem}-{number}")
    for path in PAGES
    for number, words in enumerate(commands(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("words", BLOCKS)
def test_command_of_a_page_is_accepted(words: list[str]) -> None:
    parse(words)


def test_commands_of_generated_pages_are_accepted(builtin: Registry) -> None:
    text = "\n".join(pages(builtin, figures=False).values()) + command_line.page(builtin)
    listed = {tuple(words) for words in commands(text)}
    assert len(listed) > 20
    for words in listed:
        if not any(word.isupper() or word.startswith("[") for word in words):  # a synopsis
            parse(list(words))


def test_options_in_sentences_exist() -> None:
    group: Any = typer.main.get_group(app)
    context = typer.Context(group, info_name="gptkit")
    checked = 0
    for path in PAGES:
        for span in re.findall(r"`gptkit ([a-z][^`]*)`", path.read_text(encoding="utf-8")):
            words = span.split()
            command = group.get_command(context, words[0])
            assert command is not None, f"{path.name}: {span}"
            if hasattr(command, "list_commands"):
                command = command.get_command(context, words[1]) if len(words) > 1 else command
                assert command is not None, f"{path.name}: {span}"
            known = {
                name for parameter in command.get_params(context) for name in (*parameter.opts, *parameter.secondary_opts)
            }
            for word in words:
                if word.startswith("--"):
                    checked += 1
                    assert word.partition("=")[0] in known | {"--help"}, f"{path.name}: {span}"
    assert checked > 20
