"""`gptkit eject`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gptkit.components.feedforward.written import dense
from tests.support.command_line import Call


def test_written_file_prints_what_the_run_generates(run: Path, tmp_path: Path, call: Call) -> None:
    file = tmp_path / "model.py"
    result = call("eject", run, file)
    written, check, expected = result.stderr.replace("\n  ", " ").strip().splitlines()
    n_lines = len(file.read_text(encoding="utf-8").splitlines())
    assert f"written to {file}: {n_lines} lines" in written
    command = shlex.split(check.removeprefix("check: "))
    assert command[0] == "python"
    done = subprocess.run([sys.executable, "-I", *command[1:]], capture_output=True, text=True, check=True)
    assert expected == f"must print {done.stdout.strip()}, as this run does"
    assert done.stdout.startswith("1 2 3 ")


@pytest.mark.slow
def test_written_file_reports_missing_weights(project: Path, call: Call) -> None:
    call("eject", "mini.yaml", "model.py")
    for arguments in (["absent"], []):
        command = [sys.executable, "-I", "model.py", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        weights = "".join(arguments)
        assert done.stderr == f"error: no file {weights!r}; use: python FILE WEIGHTS.safetensors ID ...\n"


def test_code_that_does_not_declare_the_weights_is_not_written(
    project: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "_CLASS", dense._CLASS.replace("self.down =", "self.lower ="))
    refused = call("eject", "mini.yaml", "model.py", code=2)
    assert "the code and the weights do not fit" in refused.stderr.replace("\n  ", " ")
    assert not Path("model.py").exists()


def test_spec_is_written_without_weights(project: Path, call: Call) -> None:
    result = call("eject", "mini.yaml", "model.py", "--set", "model.norm=layer")
    assert "nn.LayerNorm(" in Path("model.py").read_text(encoding="utf-8")
    assert "check:" not in result.stderr


def test_existing_files_are_kept(project: Path, call: Call) -> None:
    own = Path("own.py")
    own.write_text("print(1)\n", encoding="utf-8")
    for options in ((), ("--force",)):
        assert (
            "own.py exists and was not written by gptkit eject" in call("eject", "mini.yaml", own, *options, code=2).stderr
        )
    assert own.read_text(encoding="utf-8") == "print(1)\n"
    call("eject", "mini.yaml", "model.py", "--quiet")
    Path("model.py").write_text(Path("model.py").read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    assert "--force" in call("eject", "mini.yaml", "model.py", code=2).stderr
    assert Path("model.py").read_text(encoding="utf-8").endswith("# mine\n")
    call("eject", "mini.yaml", "model.py", "--force", "--quiet")
    assert not Path("model.py").read_text(encoding="utf-8").endswith("# mine\n")


def test_refusals_name_the_reason_and_write_nothing(project: Path, call: Call) -> None:
    adapters = "model.linear={name: low-rank, projections: ['*.qkv']}"
    result = call("eject", "mini.yaml", "model.py", "--set", adapters, code=2)
    assert "linear 'low-rank' cannot be written out with adapters of some" in " ".join(result.stderr.split())
    assert not Path("model.py").exists()
    assert "Python" in call("eject", "mini.yaml", "model.txt", code=2).stderr
    assert "does not exist" in call("eject", "mini.yaml", "missing/model.py", code=2).stderr


def test_quantized_run_is_refused(run: Path, tmp_path: Path, call: Call) -> None:
    call("quantize", run, "-o", tmp_path / "quantized")
    result = call("eject", tmp_path / "quantized", tmp_path / "model.py", code=2)
    assert "stored in precision" in result.stderr
    assert "Eject the run that it was quantized from" in result.stderr
    assert not (tmp_path / "model.py").exists()


def test_names_cannot_leave_their_docstring(project: Path, call: Call) -> None:
    call("eject", "mini.yaml", "model.py", "--set", 'name=a"""; import os #', "--quiet")
    compile(Path("model.py").read_text(encoding="utf-8"), "model.py", "exec")
    assert "import os" not in Path("model.py").read_text(encoding="utf-8").splitlines()[1:]
    assert Path("model.py").read_text(encoding="utf-8").startswith('"""a---- import os -: a language model')
