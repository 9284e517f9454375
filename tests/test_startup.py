"""Commands about specs and components start without torch and the other large libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LARGE = ("torch", "numpy", "matplotlib", "transformers", "tokenizers", "tiktoken", "safetensors", "gguf", "jinja2")
REPORT = f"import sys; print('imported:', *sorted(set(sys.modules) & set({LARGE!r})))"


def imported_by(code: str, directory: Path, **environment: str) -> tuple[list[str], str]:
    """The large libraries that are imported after running the code in a fresh interpreter, and what it printed."""
    script = f"import atexit\natexit.register(lambda: exec({REPORT!r}))\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        env={**os.environ, "GPTKIT_DISABLE": _other_plugins(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    output, _, libraries = done.stdout.rpartition("imported:")
    return libraries.split(), output


def _other_plugins() -> str:
    """Installed plugins may import what they like; here only gptkit's own start-up counts."""
    from gptkit.core.registry import default_registry

    return ",".join(plugin.distribution for plugin in default_registry().plugins() if not plugin.built_in)


def command(*arguments: str) -> str:
    return f"import sys; sys.argv = ['gptkit', *{list(arguments)!r}]\nfrom gptkit.cli.main import main\nmain()"


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (("--help",), "Usage"),
        (("--version",), "gptkit"),
        (("check", "tiny"), "tiny: valid"),
        (("show", "tiny", "--resolved"), "n_layers"),
        (("components",), "attention"),
        (("components", "norm"), "rms"),
        (("components", "norm", "rms"), "eps"),
        (("plugins",), "gptkit"),
        (("plugins", "--verbose"), "multi-head"),
        (("schema",), '"$defs"'),
        (("new", "--list"), "tiny"),
        (("new", "mine.yaml"), "mine.yaml"),
    ],
)
def test_commands_about_specs_and_components_import_no_large_library(
    arguments: tuple[str, ...], printed: str, tmp_path: Path
) -> None:
    libraries, output = imported_by(command(*arguments), tmp_path)
    assert printed in output
    assert libraries == []


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("gptkit che", "check"),
        ("gptkit components nor", "norm"),
        ("gptkit components norm r", "rms"),
        ("gptkit new --from ti", "tiny"),
    ],
)
def test_completion_imports_no_large_library(typed: str, completed: str, tmp_path: Path) -> None:
    shell = {"_GPTKIT_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    libraries, output = imported_by(command(), tmp_path, **shell)
    assert completed in output.split()
    assert libraries == []


def test_every_shipped_spec_is_validated_without_a_large_library(tmp_path: Path) -> None:
    code = (
        "from gptkit.presets.catalog import groups\nfrom gptkit.runs.opening import open_spec\n"
        # The presets for fine-tuning are whole with the model that they start from only.
        "for name in (*groups()['to start from'], *groups()['released models']):\n"
        "    print(name, open_spec(name).spec.sha256)"
    )
    libraries, output = imported_by(code, tmp_path)
    assert "tiny " in output
    assert len(output.splitlines()) > 40
    assert libraries == []


def test_an_invalid_spec_is_reported_without_a_large_library(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "model:\n  d_model: 30\n  attention: {name: multi-head, n_heads: 4}\n", encoding="utf-8"
    )
    code = f"try:\n    exec({command('check', 'bad.yaml')!r})\nexcept SystemExit as stopped:\n    print(stopped.code)"
    libraries, output = imported_by(code, tmp_path)
    assert output.split() == ["2"]
    assert libraries == []
