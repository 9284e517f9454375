"""Twenty broken distributions installed together: every command works, and `gptkit plugins` lists all twenty."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
from typing import Literal
from pydantic import Field
import gptkit
from gptkit.kinds.norm import NormSpec
from torch import nn
"""
NORM = """
class Spec{n}(NormSpec):
    "A norm."
    name: Literal["{name}"] = "{name}"
    def build(self, context, *, dim):
        return nn.Identity()
"""
HOOK = """
@gptkit.hookimpl
def gptkit_components():
    return {returned}
"""


def good(name: str, n: int = 0) -> str:
    return HEAD + NORM.format(name=name, n=n) + HOOK.format(returned=f"[Spec{n}]")


BROKEN = {
    "syntax": "def broken(:\n",
    "imports": "import a_module_that_is_nowhere\n",
    "raises": "raise RuntimeError('at import')\n",
    "exits": "import sys\nsys.exit(3)\n",
    "prints": "print('hello from a plugin')\nraise ValueError('after printing')\n",
    "recursion": "def f(): return f()\nf()\n",
    "hookraises": HEAD + "@gptkit.hookimpl\ndef gptkit_components():\n    raise KeyError('in the hook')\n",
    "not-components": HEAD + HOOK.format(returned="42"),
    "text": HEAD + HOOK.format(returned="'rms'"),
    "instances": HEAD + NORM.format(name="inst", n=0) + HOOK.format(returned="[Spec0()]"),
    "nothing": HEAD + HOOK.format(returned="None"),
    "misspelled": HEAD + "@gptkit.hookimpl\ndef gptkit_component():\n    return []\n",
    "nohook": HEAD,
    "takes": good("rms"),
    "twice": HEAD + NORM.format(name="same", n=0) + NORM.format(name="same", n=1) + HOOK.format(returned="[Spec0, Spec1]"),
    "noname": HEAD
    + "class S(NormSpec):\n    'A norm.'\n    def build(self, context, *, dim): ...\n"
    + HOOK.format(returned="[S]"),
    "badname": good("Not A Name"),
    "abstract": HEAD
    + "class S(NormSpec):\n    'A norm.'\n    name: Literal['abst'] = 'abst'\n"
    + HOOK.format(returned="[S]"),
    "kindreturned": HEAD + HOOK.format(returned="[NormSpec]"),
    "badspec": HEAD
    + "class S(NormSpec):\n    name: Literal['b'] = 'b'\n    x: undefined_type = 1\n"
    + HOOK.format(returned="[S]"),
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the faulty twenty, and a good one, are installed."""
    directory = tmp_path_factory.mktemp("faulty")
    for name, code in {**BROKEN, "fine": good("fine-norm")}.items():
        (directory / f"plugin_{name}.py").write_text(code, encoding="utf-8")
        info = directory / f"gptkit_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gptkit-{name}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[gptkit]\n{name} = plugin_{name}\n", encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(directory), "COLUMNS": "200", "NO_COLOR": "1"}


def run(environment: dict[str, str], *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gptkit.cli.main", *arguments]
    code = "from gptkit.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *command[3:]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        check=False,
    )


def test_plugins_names_all_twenty(installed: dict[str, str]) -> None:
    assert len(BROKEN) == 20
    result = run(installed, "plugins")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    for name in BROKEN:
        assert f"gptkit-{name}" in result.stdout, name
    assert result.stdout.count("broken") >= 20
    assert "gptkit-fine" in result.stdout


@pytest.mark.slow
def test_other_commands_work_beside_them(installed: dict[str, str], tmp_path: Path) -> None:
    spec = tmp_path / "a.yaml"
    spec.write_text(
        "model: {d_model: 16, n_layers: 1, norm: fine-norm, vocab_size: 9}\ntokenizer: byte\n".replace("9", "300")
    )
    checked = run(installed, "check", str(spec))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = run(installed, "components", "norm")
    assert listed.returncode == 0
    assert "rms" in listed.stdout
    assert "fine-norm" in listed.stdout
    assert "hello from a plugin" not in listed.stdout + listed.stderr
    # An unknown name lists the plugins that may define it.
    spec.write_text("model: {norm: not-there}\n")
    missing = run(installed, "check", str(spec))
    assert missing.returncode == 2
    assert "did not load" in missing.stdout + missing.stderr
    assert "Traceback" not in missing.stdout + missing.stderr
