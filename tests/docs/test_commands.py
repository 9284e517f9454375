"""Commands on handwritten and generated pages: the parser of the command line accepts them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from gptkit.cli.main import app
from gptkit.core.registry import Registry
from gptkit.docs import command_line
from gptkit.docs.pages import pages
from tests.support.snippets import PAGES, gptkit_commands, parse

BLOCKS = [
    pytest.param(words, id=f"{page}-{number}")
    for page, path in PAGES.items()
    for number, words in enumerate(gptkit_commands(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("words", BLOCKS)
def test_command_of_a_page_is_accepted(words: list[str]) -> None:
    parse(words)


def test_commands_of_generated_pages_are_accepted(builtin: Registry) -> None:
    text = "\n".join(pages(builtin, figures=False).values()) + command_line.page(builtin)
    listed = {tuple(words) for words in gptkit_commands(text)}
    assert len(listed) > 20
    for words in listed:
        if not any(word.isupper() or word.startswith("[") for word in words):  # a synopsis
            parse(list(words))


def test_options_in_sentences_exist() -> None:
    group: Any = typer.main.get_group(app)
    context = typer.Context(group, info_name="gptkit")
    checked = 0
    for path in PAGES.values():
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
