"""Commands in messages, as a shell reads them."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from gptkit.core.commands import command, quoted

PACKAGE = Path(__file__).parents[2] / "gptkit"


@pytest.mark.parametrize("path", ["runs/gpt", "my runs/gpt", "it's", "$HOME", "a;b"])
def test_words_are_read_as_they_are(path: str) -> None:
    assert shlex.split(command("gptkit train --resume", Path(path))) == ["gptkit", "train", "--resume", path]
    assert shlex.split(quoted(Path(path))) == [path]


def test_plain_words_are_not_quoted() -> None:
    assert command("gptkit generate", Path("runs/gpt")) == "gptkit generate runs/gpt"


COMMANDS = "check|train|generate|chat|data [a-z]+|import|export|show|eject|serve|evaluate"
BEFORE_A_WORD = re.compile(
    rf"(?:gptkit (?:{COMMANDS}) |--(?:init|resume) |chmod \S+ |mkdir -p )(?:--?[a-z-]+ |[A-Z_]+ |[a-z]+ )*$"
)
"""The end of a text after which a value is a word of a command."""


def test_no_message_has_a_path_in_a_command_without_quotes() -> None:
    not_paths = {"kind", "SPEC", "name"}  # of components and presets
    unquoted = []
    for file in sorted(PACKAGE.rglob("*.py")):
        if "docs" in file.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.JoinedStr):  # an f-string
                continue
            for before, value in zip(node.values, node.values[1:], strict=False):
                if not isinstance(before, ast.Constant) or not BEFORE_A_WORD.search(str(before.value)):
                    continue
                if isinstance(value, ast.FormattedValue) and isinstance(value.value, (ast.Name, ast.Attribute)):
                    text = ast.unparse(value.value)
                    unquoted += [] if text in not_paths else [f"{file.relative_to(PACKAGE)}:{value.lineno}: {text}"]
    assert unquoted == []
