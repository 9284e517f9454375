"""No command removes, empties or overwrites a file that gptkit did not write."""

from __future__ import annotations

from pathlib import Path

import pytest

import gptkit
from gptkit.cli.new import SCHEMA
from tests.support.command_line import Call


def contents(directory: Path) -> dict[str, str]:
    return {path.relative_to(directory).as_posix(): path.read_text() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def thesis(project: Path) -> Path:
    """Create a project whose spec and corpus have the names of a run's files."""
    (project / "mini.yaml").rename(project / "spec.yaml")
    (project / "data").mkdir()
    (project / "data" / "corpus.txt").write_text("years of work")
    return project


@pytest.mark.parametrize("option", [None, "--overwrite", "--resume"])
def test_train_into_a_project_changes_nothing(call: Call, thesis: Path, option: str | None) -> None:
    before = contents(thesis)
    options = [] if option is None else [option]
    message = call("train", "spec.yaml", ".", "--quiet", *options, code=2).stderr
    assert "is not a run, but contains spec.yaml, data, which a run would replace" in message
    assert "--overwrite" not in message
    assert "is not a run" in call("train", ".", "--resume", "--quiet", code=2).stderr
    assert contents(thesis) == before


def test_reading_commands_change_nothing_in_a_project(call: Call, thesis: Path) -> None:
    before = contents(thesis)
    for command in ("show", "generate", "evaluate", "export"):
        assert "is not a run" in call(command, ".", code=2).stderr
    assert contents(thesis) == before


def test_new_keeps_the_file_that_it_replaces(call: Call, project: Path) -> None:
    for content in ("first", "second"):
        (project / "my.yaml").write_text(content)
        message = call("new", "my.yaml", "--force", "--no-schema").stdout
        assert "the previous file" in message
    assert (project / "my.yaml.old").read_text() == "first"
    assert (project / "my.yaml.old1").read_text() == "second"
    assert (project / "my.yaml").read_text().count("name: my") == 1


def test_schema_replaces_schemas_of_gptkit_and_nothing_else(call: Call, project: Path) -> None:
    before = (project / "mini.yaml").read_text()
    assert "is not a schema that gptkit wrote" in call("schema", "-o", "mini.yaml", code=2).stderr
    assert (project / "mini.yaml").read_text() == before
    call("schema", "-o", "s.json")
    call("schema", "-o", "s.json")
    (project / SCHEMA).write_text("{}")
    assert "is not a schema" in call("new", "other.yaml", code=2).stderr
    assert not (project / "other.yaml").exists()
    assert (project / SCHEMA).read_text() == "{}"


def test_plugin_new_is_atomic(call: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptkit.core import atomic

    real, written = atomic.write_text, []

    def fail(path: Path, text: str) -> None:
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        real(path, text)

    monkeypatch.setattr(atomic, "write_text", fail)
    before = contents(project)
    call("plugin", "new", "mine", "--kind", "norm", code=130)
    assert contents(project) == before
    monkeypatch.undo()


def test_export_to_gguf_replaces_nothing(call: Call, run: Path, project: Path) -> None:
    (project / "model.gguf").write_text("mine")
    assert "already exists" in call("export", run, "model.gguf", "--to", "gguf", code=2).stderr
    assert (project / "model.gguf").read_text() == "mine"


def test_a_failed_overwrite_keeps_the_run(call: Call, run: Path, project: Path) -> None:
    message = call("train", "mini.yaml", run, "--overwrite", "--quiet", "--set", "data.path=corpse.txt", code=2).stderr
    assert "corpse.txt: file or directory not found" in message
    assert gptkit.load(run).step == 3


@pytest.mark.parametrize(
    "arguments",
    [
        *(["new", ""], ["check", ""], ["show", ""], ["diff", "mini.yaml", ""], ["train", "mini.yaml", ""]),
        *(["generate", "", "a"], ["chat", ""], ["quantize", ""], ["inspect", "", "--text", "a"], ["evaluate", ""]),
        *(["import", "mini.yaml", ""], ["export", "", "out"], ["serve", ""], ["play", ""], ["schema", "--output", ""]),
    ],
    ids=" ".join,
)
def test_empty_path_is_an_error_and_does_not_select_the_current_directory(
    arguments: list[str], project: Path, call: Call
) -> None:
    before = sorted(project.iterdir())
    assert "is empty; write a path" in " ".join(call(*arguments, code=2).stderr.split())
    assert sorted(project.iterdir()) == before


def test_verbs_of_other_programs_do_not_hide_commands() -> None:
    from gptkit.cli.main import _PANELS
    from gptkit.cli.other_names import VERBS

    commands = {name for panel in _PANELS.values() for name in panel}
    assert not commands & set(VERBS)
    assert {suggestion.split()[0] for suggestion in VERBS.values()} - {"--version", "--help"} <= commands


@pytest.mark.parametrize(("file", "remedy"), [("missing.txt", "check the name"), (".", "pass a file")])
def test_errors_of_the_system_have_a_remedy(file: str, remedy: str, run: Path, call: Call) -> None:
    message = call("inspect", run, "--file", file, code=2).stderr
    assert message.startswith(f"error: {file}: ")
    assert f"hint: {remedy}" in message


def test_path_without_a_model_has_a_remedy(project: Path, call: Call) -> None:
    message = call("import", "corpus.txt", "run", code=2).stderr
    assert "is not a model in a known format" in message
    assert "hint: Give the directory or file of a downloaded model." in message
