"""Help, versions, exit codes, and error output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import gptkit
from gptkit.cli import check
from gptkit.core.errors import GptkitError
from tests.support.command_line import Call

COMMANDS = [
    "demo",
    "new",
    "check",
    "show",
    "diff",
    "train",
    "generate",
    "chat",
    "evaluate",
    "components",
    "plugins",
    "schema",
]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_of_every_command_works_without_torch() -> None:
    code = f"""
import sys
from typer.testing import CliRunner
from gptkit.cli.main import app
for command in [[], *[[name] for name in {COMMANDS!r}]]:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0 and "Usage" in result.stdout, (command, result.stdout)
print(sorted({{"torch", "numpy", "ruamel", "matplotlib"}} & {{name.partition(".")[0] for name in sys.modules}}))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_check_imports_neither_compiler_nor_matplotlib() -> None:
    code = """
import sys
from typer.testing import CliRunner
from gptkit.cli.main import app
assert CliRunner().invoke(app, ["check", "tiny"]).exit_code == 0
print(sorted({"torch._dynamo", "sympy", "matplotlib", "transformers"} & set(sys.modules)))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_help_lists_every_command_in_order(call: Call) -> None:
    text = call("--help").stdout
    places = [text.index(f"│ {name} ") for name in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("columns", ["60", "80"])
def test_help_fits_the_width_without_color(call: Call, columns: str) -> None:
    for command in COMMANDS:
        text = call(command, "--help", env={"COLUMNS": columns, "TERMINAL_WIDTH": columns}).stdout
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= int(columns), command


def test_version_is_printed(call: Call) -> None:
    assert call("--version").stdout == f"gptkit {gptkit.__version__}\n"


def test_invalid_command_lines_exit_with_2(call: Call) -> None:
    assert "check" in call("chekc", code=2).stderr
    call("check", code=2)
    call("train", "a", "--unknown", code=2)


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def raise_it(text: str) -> None:
        raise error

    monkeypatch.setattr(check.console, "out", raise_it)


def test_an_error_is_a_message_and_a_hint(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, GptkitError("it is [bold]so[/]", hint="Do this."))
    result = call("check", "tiny", code=2)
    assert result.stderr == "error: it is [bold]so[/]\nhint: Do this.\n"
    assert result.stdout == ""


def test_debugging_propagates_exceptions(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, GptkitError("it is so"))
    result = call("check", "tiny", code=1, env={"GPTKIT_DEBUG": "1"})
    assert isinstance(result.exception, GptkitError)


def test_crash_reports_the_error_its_location_and_how_to_get_the_traceback(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, ZeroDivisionError("by zero"))
    result = call("check", "tiny", code=1)
    assert isinstance(result.exception, SystemExit)
    assert "ZeroDivisionError: by zero" in result.stderr
    assert re.search(r"at .*test_main\.py:\d+, in raise_it", result.stderr)
    assert "GPTKIT_DEBUG=1" in result.stderr
    assert "Traceback" not in result.stderr


def test_unusable_file_exits_with_2(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, PermissionError(13, "Permission denied", "runs/x"))
    error, hint = call("check", "tiny", code=2).stderr.splitlines()
    assert error == "error: runs/x: Permission denied"
    assert hint == "hint: change the file's permissions, or choose another file"


def test_ctrl_c_exits_with_130(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert call("check", "tiny", code=130).stderr == "interrupted\n"


def test_gptkit_warnings_are_printed_on_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    def warn(text: str) -> None:
        logging.getLogger("gptkit").warning("tracker %r failed", "x")
        warnings.warn_explicit("now called y", DeprecationWarning, check.__file__, 1, module="gptkit.cli.check")

    monkeypatch.setattr(check.console, "out", warn)
    assert call("check", "tiny").stderr == "warning: tracker 'x' failed\nwarning: now called y\n"


def test_closed_pipe_exits_without_a_message() -> None:
    # The pipe is closed before anything is written into it.
    code = """
import os, sys
read, write = os.pipe()
os.close(read)
os.dup2(write, 1)
sys.argv = ["gptkit", "new", "--list"]
from gptkit.cli.main import main
main()
"""
    done = python(code)
    assert done.returncode == 1
    assert done.stderr == ""


def test_terminal_without_the_encoding_gets_replacement_characters(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['gptkit', '--help']; from gptkit.cli.main import main; main()"
    done = python(code, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0
    assert "Compose, train and run" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gptkit components posi", {"position"}),
        ("gptkit components position ro", {"rotary"}),
        ("gptkit new --from mo", {"modern", "modernbert-decoder-150m"}),
        ("gptkit check mi", {"mini.yaml"}),
        ("gptkit train mini.yaml run", {"runs/"}),
    ],
)
def test_completion_suggests_names(call: Call, project: Path, words: str, expected: set[str]) -> None:
    (project / "runs").mkdir()
    (project / "mine.txt").touch()
    count = str(len(words.split()) - 1)
    environment = {"_GPTKIT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
    assert set(call(env=environment, prog_name="gptkit").stdout.split()) == expected


def test_completion_never_fails(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("no registry")

    monkeypatch.setattr("gptkit.core.registry.default_registry", broken)
    environment = {"_GPTKIT_COMPLETE": "complete_bash", "COMP_WORDS": "gptkit components position r", "COMP_CWORD": "3"}
    assert call(env=environment, prog_name="gptkit").stdout.split() == []
