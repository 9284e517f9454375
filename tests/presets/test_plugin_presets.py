"""Presets of plugins in `gptkit new --from`, `extends`, lists and pages; name clashes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

import gptkit
from gptkit.cli.main import app
from gptkit.core.errors import CollisionError, GptkitError
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry
from gptkit.docs.models import page
from gptkit.docs.pages import pages
from gptkit.presets.catalog import find, groups, presets
from tests.support.plugin_registry import registry_of

TEXT = """# {name}: a model of one layer
name: {name}
model: {{d_model: 16, n_layers: 1, context_length: 16, attention: {{n_heads: 2}}}}
"""


def shipping(returned: Any) -> ModuleType:
    module = ModuleType("fake_presets")

    def gptkit_presets() -> Any:
        return returned

    module.gptkit_presets = hookimpl(gptkit_presets)  # type: ignore[attr-defined]
    return module


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "presets"
    directory.mkdir()
    for name in ("one-layer", "tiny"):
        (directory / f"{name}.yaml").write_text(TEXT.format(name=name))
    (directory / "notes.txt").write_text("not a preset")
    return directory


def registry(**plugins: Any) -> Registry:
    return registry_of(**{name: lambda returned=returned: shipping(returned) for name, returned in plugins.items()})


def test_commands_and_pages_list_a_plugin_preset(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = registry(gptkit_small=[directory])
    monkeypatch.setattr("gptkit.core.registry.lookup._default", result)
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    listed = runner.invoke(app, ["new", "--list"], env={"COLUMNS": "100"}).output
    assert "from gptkit-small==1.0" in listed
    assert "one-layer" in listed
    made = runner.invoke(app, ["new", "mine.yaml", "--from", "one-layer", "--no-schema"])
    assert made.exit_code == 0, made.output
    assert "n_layers: 1" in (tmp_path / "mine.yaml").read_text()
    (tmp_path / "wide.yaml").write_text("extends: one-layer\nmodel: {d_model: 32}\n")
    assert gptkit.open_spec(tmp_path / "wide.yaml").spec.model.d_model == 32
    assert gptkit.open_spec("one-layer").spec.name == "one-layer"
    assert "presets: `one-layer`" in pages(result, figures=False)["plugins.md"]
    assert "## from gptkit-small==1.0" in page(result)
    assert "<p>A model of one layer</p>\n<pre><code>gptkit new my.yaml --from one-layer</code></pre>" in page(result)


def test_built_in_preset_takes_precedence(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = registry(gptkit_small=directory)
    assert presets(result)["tiny"].plugin is None
    assert "gptkit-small==1.0: preset 'tiny' has the name of a built-in one" in caplog.text


def test_preset_name_of_two_plugins_is_unavailable(directory: Path) -> None:
    result = registry(gptkit_a=[directory / "one-layer.yaml"], gptkit_b=[directory / "one-layer.yaml"])
    assert "one-layer" not in presets(result)
    with pytest.raises(CollisionError, match=r"'one-layer' is shipped by gptkit-a==1\.0 and gptkit-b==1\.0"):
        find("one-layer", result)


def test_paths_that_are_not_spec_files_are_reported(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = registry(gptkit_small=[directory / "notes.txt", directory / "one-layer.yaml", 3])
    assert list(groups(result)) == [
        "to start from",
        "to fine-tune with (train --init)",
        "released models",
        "from gptkit-small==1.0",
    ]
    assert caplog.text.count("is not a .yaml file or a directory") == 2
    with pytest.raises(GptkitError, match="did you mean 'one-layer'"):
        find("one-layr", result)
