"""`gptkit plugin new` creates working distributions for every kind; `gptkit plugin check` tests them."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

import gptkit.core.registry.lookup
from gptkit.cli.main import app
from gptkit.cli.plugin_files import kinds, render
from gptkit.components import plugin as builtin_components
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.files import validate_data
from gptkit.interop import plugin as builtin_families
from gptkit.kinds import plugin as builtin_kinds
from gptkit.runs.spec import ExperimentSpec
from gptkit.testing import instances, run_checks


def write(directory: Path, name: str, kind: str) -> Path:
    for path, text in render(name, kind).items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return directory


def point(name: str, distribution: str, load: Any, value: str = "") -> Any:
    dist = SimpleNamespace(name=distribution, version="1.0")
    return SimpleNamespace(name=name, value=value or name, dist=dist, load=load)


def registry_with(directory: Path) -> Registry:
    """Return a registry of the built-in components and the distribution in a directory, given its pyproject.toml."""
    project = tomllib.loads((directory / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((name, module),) = project["entry-points"]["gptkit"].items()
    return Registry(
        [
            point("kinds", "gptkit", lambda: builtin_kinds),
            point("components", "gptkit", lambda: builtin_components),
            point("families", "gptkit", lambda: builtin_families),
            point(name, project["name"], lambda: importlib.import_module(module), module),
        ],
        (),
    )


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a new plugin of a kind, and make it importable."""
    directory = write(tmp_path, f"new-{request.param}", request.param)
    monkeypatch.syspath_prepend(str(directory))
    return directory


def test_every_kind_has_a_template() -> None:
    assert kinds() == sorted(gptkit.core.registry.default_registry().kinds())


@pytest.mark.slow
@pytest.mark.parametrize("made", kinds(), indirect=True)
def test_new_plugin_passes_its_conformance_checks(made: Path, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["made"]
    registry = registry_with(made)
    plugin = registry.plugins()[-1]
    assert plugin.error is None, plugin.detail
    assert plugin.components == [(kind, f"new-{kind}")]
    for spec in instances(registry.component(kind, f"new-{kind}")):
        assert not [f"{result.check.name}: {result.message}" for result in run_checks(spec) if not result.ok]
    usage = (made / "README.md").read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    data = YAML(typ="safe").load(usage) or {}
    assert kind == "family" or f"new-{kind}" in usage
    validate_data({"model": {}, **data}, ExperimentSpec, registry)


@pytest.mark.parametrize("kind", kinds())
def test_files_pass_ruff(kind: str) -> None:
    result = render("a-b2", kind)
    assert result.keys() >= {"pyproject.toml", "README.md", "LICENSE", "gptkit_a_b2/plugin.py", "tests/test_a_b2.py"}
    for path, text in result.items():
        assert "$" not in text, path
        assert all(len(line) <= 125 and line == line.rstrip() for line in text.splitlines()), path
        assert text.endswith("\n") or path.endswith("py.typed")
        assert not text.endswith("\n\n")
    source = result["gptkit_a_b2/a_b2.py"]
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import gptkit", "from gptkit"))}
    public = ("gptkit.kinds.", "gptkit.nn.", "gptkit.ops.", "gptkit.core.", "gptkit.interop.")
    if kind == "engine":
        public += ("gptkit.engines.", "gptkit.inference.")
    if kind == "optimizer":
        public += ("gptkit.components.optimizer.groups",)
    assert all(module.startswith(public) for module in imported), imported
    assert "ABSpec" not in source
    assert "AB2Spec" in source


def test_distribution_names_are_validated() -> None:
    assert render("gptkit-fire", "position") == render("fire", "position")
    assert "gptkit_class/class_component.py" in render("class", "norm")
    for wrong in ("Talking", "two words", "-x", "2d", "a_b", "", "../x"):
        with pytest.raises(GptkitError, match="invalid component name"):
            render(wrong, "norm")
    with pytest.raises(GptkitError, match="did you mean 'attention'"):
        render("x", "atention")


# -- the commands -----------------------------------------------------------------------------------------------------


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "100", "GPTKIT_DEBUG": ""})


def test_new_does_not_overwrite_files(tmp_path: Path) -> None:
    done = call("plugin", "new", "gptkit-quiet", "--kind", "sampler", "--into", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "gptkit-quiet" / "pyproject.toml") in done.output
    files = {path.relative_to(tmp_path / "gptkit-quiet").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == set(render("quiet", "sampler"))
    again = call("plugin", "new", "quiet", "--kind", "sampler", "--into", str(tmp_path))
    assert again.exit_code == 2
    assert "already exists" in again.output


def test_new_rejects_an_existing_name(tmp_path: Path) -> None:
    done = call("plugin", "new", "top-k", "--kind", "sampler", "--into", str(tmp_path))
    assert done.exit_code == 2
    assert "sampler 'top-k' is already registered by gptkit==" in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("made", ["schedule"], indirect=True)
def test_check_prints_a_table_and_fails_with_a_failed_check(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gptkit.core.registry.lookup, "_default", registry_with(made))
    done = call("plugin", "check", "gptkit-new-schedule")
    assert done.exit_code == 0, done.output
    rows = {line.split()[0]: line.split()[1:] for line in done.output.splitlines() if len(line.split()) == 2}
    assert rows["within-bounds"] == ["ok"]
    assert "8 checks, none failed" in done.output

    cls = gptkit.core.registry.default_registry().component("schedule", "new-schedule")
    monkeypatch.setattr(cls, "factor", lambda self, step, steps: 2.0)
    done = call("plugin", "check", "new-schedule")
    assert done.exit_code == 1, done.output
    assert re.search(r"within-bounds +FAILED", done.output)
    assert "schedule new-schedule: within-bounds: the factor at step 0 of 1 is 2.0" in done.output
    done = call("plugin", "check", "new-schedule", "--expect-failure", "new-schedule:within-bounds=on purpose")
    assert done.exit_code == 0, done.output
    assert "schedule new-schedule: within-bounds: on purpose" in done.output
    done = call("plugin", "check", "new-schedule", "--expect-failure", "new-schedule:within-bound=on purpose")
    assert done.exit_code == 2
    assert "did you mean 'within-bounds'?" in done.output


def test_check_reports_missing_and_broken_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    done = call("plugin", "check", "gptkitt")
    assert done.exit_code == 2
    assert "plugin 'gptkitt' is not installed; did you mean 'gptkit'?" in done.output

    def fails() -> Any:
        raise ImportError("no module named nothing")

    monkeypatch.setattr(gptkit.core.registry.lookup, "_default", Registry([point("bad", "gptkit-bad", fails)], ()))
    done = call("plugin", "check", "gptkit-bad")
    assert done.exit_code == 2
    assert "gptkit-bad==1.0 (bad): could not be imported: ImportError: no module named nothing" in done.output


@pytest.mark.parametrize("made", ["schedule"], indirect=True)
def test_check_reports_a_component_that_cannot_be_built(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = next(made.glob("gptkit_*/new_schedule.py"))
    source.write_text(source.read_text(encoding="utf-8").replace("Field(100, ge=1", "Field(ge=1"), encoding="utf-8")
    for name in [name for name in sys.modules if name.startswith("gptkit_new_schedule")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(gptkit.core.registry.lookup, "_default", registry_with(made))
    done = call("plugin", "check", "gptkit-new-schedule")
    assert done.exit_code == 1, done.output
    assert (
        "schedule new-schedule: constructible: it has the required field warmup_steps, and no `examples`; give it a"
        in done.output
    )
    for name in [name for name in sys.modules if name.startswith("gptkit_new_schedule")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("made", ["family"], indirect=True)
def test_new_family_passes_its_own_tests(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(gptkit.core.registry.lookup, "_default", registry_with(made))
    names: dict[str, Any] = {}
    source = (made / "tests" / "test_new_family.py").read_text(encoding="utf-8")
    exec(compile(source, "test_new_family.py", "exec", dont_inherit=True), names)
    pair = names["ReferencePair"].of(names["NewFamilySpec"](), names["SIZES"])
    for name, test in names.items():
        if name.startswith("test_") and name not in ("test_conformance", "test_is_registered"):
            directory = tmp_path / name
            directory.mkdir()
            test(pair, *([directory] if "tmp_path" in test.__annotations__ else []))
    assert sum(name.startswith("test_") for name in names) == 8
    skipped = [r for r in run_checks(names["NewFamilySpec"]()) if r.outcome == "skipped"]
    assert not skipped, "the reference judges the template"


@pytest.mark.slow
def test_new_plugins_of_every_kind_install_and_pass_their_tests(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="builds wheels, for which hatchling must be installed")
    directories = [write(tmp_path / "made" / kind, f"try-{kind}", kind) for kind in kinds()]
    site, checkout = tmp_path / "site", Path(gptkit.__file__).parents[1]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), *map(str, directories)], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(checkout)]), "OMP_NUM_THREADS": "1"}
    tests = [str(directory / "tests") for directory in directories]
    own = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *tests]
    check = [str(Path(sys.executable).with_name("gptkit")), "plugin", "check", "gptkit-try-attention"]
    for command in (own, check):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
