"""The Python and the commands of the handwritten pages are executed, in order, in a directory with the files that they name.

Commands that train run for two steps; what is not executed is listed with the reason, and `test_snippets.py` parses it.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.command_line import caller
from tests.support.page_stage import make_released_model, make_stage
from tests.support.server import ServerProcess
from tests.support.snippets import Block, blocks, command_lines, program, words

COMPARED = ("docs/python", "docs/the-book", "docs/learn/text", "docs/learn/attention", "docs/learn/gpt")
"""Pages whose output is compared: a comment after a `print`, and text below a block."""
PYTHON = (
    *("README", "docs/eject", "docs/generated-code", "docs/generation", "docs/gguf", "docs/index", "docs/inspecting"),
    *("docs/onnx", "docs/quantization", "docs/torch-export"),
)
"""Further pages whose Python is executed after their commands."""
SERVED = "docs/serving"
COMMANDS = (
    *("README", "docs/data", "docs/families", "docs/fine-tuning", "docs/generation", "docs/gguf", "docs/how-to"),
    *("docs/index", "docs/inspecting", "docs/quantization", "docs/scaling", "docs/spec-files", "docs/training"),
    *("docs/eject", "docs/generated-code", "docs/onnx", "docs/torch-export", "docs/writing-a-component"),
    *("plugins/gptkit-mlflow/README", "plugins/gptkit-tensorboard/README", "plugins/gptkit-wandb/README"),
)
NOT_EXECUTED = {
    r"^(?!gptkit )": "another program",
    r"^gptkit (serve|play)\b": "a server, which runs until it is stopped; docs/serving.md's requests are sent to one",
    r"^gptkit (compare|search|scaling)\b": "trains many models; tests/experiments do so with smaller ones",
    r"^gptkit (bench|plan .*--measure)\b": "measures for half a minute",
    r"--engine '?(\{name: )?(llama\.cpp|vllm)": "an engine of a plugin, whose tests execute it",
    r"^gptkit plugin check": "needs the distribution to be installed; tests/plugin_template does so",
    r"\s/(data|shared)/": "a directory of another machine",
    r"\s(SOURCE|RUN|DIR)\b": "a placeholder",
}
"""Commands that are not executed, by pattern, and why."""
FEWER = ("steps=2", "batch_size=2", "grad_accumulation=1", "evaluate_batches=1", "schedule=constant")
"""What is set below `training` for commands that train."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gguf", reason="comes with the extra `gguf`")
    directory = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        make_stage(directory)
    return directory


@pytest.fixture
def place(stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a copy of the stage, as working and home directory; modules imported from it are forgotten afterwards."""
    copy = tmp_path / "stage"
    shutil.copytree(stage, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("HOME", str(copy))
    monkeypatch.syspath_prepend(str(copy))
    before = set(sys.modules)
    yield copy
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(copy)):
            del sys.modules[name]


def why_not(line: str) -> str | None:
    """Return why a command is not executed."""
    return next((why for pattern, why in NOT_EXECUTED.items() if re.search(pattern, line)), None)


def output_of(arguments: list[str]) -> str | None:
    """Return the path that a command creates, which must not exist."""
    plain = [word for word in arguments if not word.startswith("-")]
    if arguments[0] in ("train", "import", "export", "eject") and "--resume" not in arguments:
        return plain[2] if len(plain) > 2 else None
    if arguments[0] == "new" and "--list" not in arguments:
        return plain[1]
    if arguments[0] == "plugin":
        return f"gptkit-{plain[2]}"
    return arguments[arguments.index("-o") + 1] if arguments[0] == "quantize" and "-o" in arguments else None


def remove(path: Path) -> None:
    """Remove what the stage or another command of the page, an alternative, left."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def execute(line: str) -> str:
    """Execute a command of gptkit; return what it printed."""
    arguments = [str(Path(word).expanduser()) if word.startswith("~") else word for word in words(line)[1:]]
    output = output_of(arguments)
    if output is not None:
        remove(Path(output))
    if arguments[0] == "train" and "--resume" not in arguments:
        arguments += [part for text in FEWER for part in ("--set", f"training.{text}")]
    result = caller()(*arguments, input="", env={"COLUMNS": "1000"})
    return str(result.stdout) + str(result.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("page", COMMANDS)
def test_commands_of_the_page_run(page: str, place: Path) -> None:
    """Files with a title are written where they are on the page, and specs among them checked."""
    executed = 0
    printed = ""
    for block in blocks(page):
        if block.title and block.role in ("spec", "python"):
            file = Path(block.title)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
            if block.role == "spec":
                caller()("check", block.title)
        if block.role == "commands":
            printed = ""
            for line in command_lines(block.text):
                if why_not(line) is None:
                    printed += execute(line)
                    executed += 1
        if block.role == "output" and block.first == "exported to exports/my":  # docs/generated-code.md
            assert_similar(block.text, printed)
    assert executed


def assert_similar(shown: str, printed: str) -> None:
    """Compare lines, whose numbers may differ."""
    for line in shown.splitlines():
        pattern = re.sub(r"\d+", r"\\d+", re.escape(line))
        assert re.search(pattern, printed), (line, printed)


def run_python(page: str, source: dict[str, str]) -> int:
    """Execute the Python of a page in one namespace; return how many outputs were compared.

    Args:
        page: the page.
        source: texts that are replaced in it.
    """
    checked = 0
    message = io.StringIO()
    lines: list[str] = []

    def show(*values: object, end: str = "\n", flush: bool = False) -> None:
        nonlocal checked
        shown = " ".join(str(value) for value in values)
        message.write(shown + end)
        _, _, comment = lines[sys._getframe(1).f_lineno - 1].partition(")  # ")
        if comment and end == "\n" and "\n" not in shown:
            assert shown == comment
            checked += 1

    names: dict[str, object] = {"print": show}
    every = blocks(page)
    for block in every:
        if block.role != "python" or block.title or is_sketch(block):
            continue
        text = block.text
        for old, new in source.items():
            text = text.replace(old, new)
        message.seek(message.truncate(0))
        lines[:] = text.splitlines()
        exec(compile(text, f"{page}.md", "exec", dont_inherit=True), names)
        for after in every:
            if after.line == block.end + 2 and after.role == "output" and page in COMPARED:
                assert message.getvalue() == after.text
                checked += 1
    return checked


def is_sketch(block: Block) -> bool:
    """Whether a block of an executed page is a part of a class."""
    return block.page == "docs/eject" and "class LengthNormSpec" in block.text


@pytest.fixture
def print_options() -> Iterator[None]:
    profile = dict(vars(torch._tensor_str.PRINT_OPTS))
    yield
    torch.set_printoptions(**profile)


@pytest.mark.slow
@pytest.mark.parametrize("page", COMPARED)
@pytest.mark.usefixtures("print_options")
def test_python_of_the_page_prints_what_it_says(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if page == "docs/python":
        make_released_model(tmp_path)
        shutil.rmtree("runs")  # the page creates them
    assert run_python(page, {}) > 3


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON)
@pytest.mark.usefixtures("place", "print_options")
def test_python_of_the_page_runs(page: str) -> None:
    for block in blocks(page):
        for line in command_lines(block.text) if block.role == "commands" else ():
            if re.match(r"gptkit (eject|export) runs/my\b", line):  # what the page's Python reads
                execute(line)
    run_python(page, {})


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_requests_of_the_page_are_answered(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="comes with the extra `test`")
    server = ServerProcess([Path("runs/gpt")], tmp_path / "log.txt")
    try:
        address = {"http://127.0.0.1:8000": server.url}
        run_python(SERVED, address)
        (line,) = [
            line for block in blocks(SERVED) if block.role == "commands"
            for line in command_lines(block.text) if program(line) == "curl"
        ]  # fmt: skip
        if shutil.which("curl"):
            done = subprocess.run(
                [*shlex.split(line.replace("http://127.0.0.1:8000", server.url)), "-sf"], capture_output=True, check=False
            )
            assert not done.returncode
            assert b'"choices"' in done.stdout
    finally:
        assert server.stop() == 0


def test_every_page_is_executed_or_needs_no_execution() -> None:
    python = {block.page for block in blocks() if block.role == "python"}
    modules = {"docs/families", "docs/writing-a-component"}  # test_snippets.py names their tests
    sketches = {"docs/experiments", "docs/scaling", "plugins/gptkit-lm-eval/README", "plugins/gptkit-structured/README"}
    assert python == {*COMPARED, *PYTHON, SERVED} | modules | sketches
    commands: dict[str, Any] = {}
    for block in blocks():
        for line in command_lines(block.text) if block.role == "commands" else ():
            commands.setdefault(block.page, []).append(why_not(line))
    assert {page for page, reasons in commands.items() if None in reasons} == set(COMMANDS)
