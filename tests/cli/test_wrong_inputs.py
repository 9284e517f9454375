"""Wrong and unusual inputs: the message is about the cause, at its location, and nothing is ignored without a word."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gptkit.core.registry import default_registry
from tests.support.command_line import SPEC, Call


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPEC.replace("gptkit: 1", "gptkit: 2"), "x.yaml:1:9: gptkit: the spec is of version 2 of the format, and this"),
        (SPEC.replace("gptkit: 1", "gptkit: '1'"), "x.yaml:1:9: gptkit: expected the number 1, got the text '1'; remove"),
        (SPEC.replace("  d_model", "  norm: RMS\n  d_model"), "model.norm: unknown norm 'RMS'; did you mean 'rms'?"),
        ("extends: directory\n" + SPEC, "x.yaml:1:10: extends: directory: is a directory, not a spec file"),
        ("extends: corpus.txt\n" + SPEC, "x.yaml:1:10: extends: corpus.txt: a spec file ends in .yaml"),
    ],
)
def test_the_cause_is_reported_at_its_location(call: Call, project: Path, text: str, message: str) -> None:
    (project / "directory").mkdir()
    Path("x.yaml").write_text(text)
    assert message in call("check", "x.yaml", code=2).stderr


def test_a_link_to_a_missing_file_is_not_suggested_to_itself(call: Call, project: Path) -> None:
    Path("link.yaml").symlink_to("missing.yaml")
    assert call("check", "link.yaml", code=2).stderr.startswith(
        "link.yaml: is a symbolic link to a file that does not exist"
    )


def test_entries_of_the_layer_pattern_without_layers_print_a_warning(call: Call, project: Path) -> None:
    def warned(n_layers: int) -> str:
        layers = "model.layers=[{repeat: 2, norm: layer}, {}, {norm: layer}]"
        return str(call("check", "mini.yaml", "-s", layers, "-s", f"model.n_layers={n_layers}").stderr)

    assert "model.layers.1: begins at layer 2, and the model has 2 layers, so that it has no effect" in warned(2)
    assert "model.layers.2: begins at layer 3" in warned(3)
    assert "no effect" not in warned(4)
    assert "no effect" not in warned(5)  # the pattern is repeated, and cut


def test_stages_that_the_training_does_not_complete_print_a_warning(call: Call, project: Path) -> None:
    def warned(stages: str) -> str:
        return str(call("check", "mini.yaml", "-s", f"training.stages={stages}", "-s", "training.steps=5").stderr)

    longer = "training.stages.0: is not completed: it is planned from step 1 to 9, and the training has 5 steps"
    assert longer in warned("[{steps: 9}, {batch_size: 2}]")
    missed = "training.stages.1: is not reached: it is planned from step 6 to 8, and the training has 5 steps"
    assert missed in warned("[{steps: 5}, {steps: 3}, {}]")
    assert "not reached: it is planned from step 6, and the training has 5 steps" in warned("[{steps: 5}, {batch_size: 2}]")
    assert "training.stages" not in warned("[{steps: 2}, {steps: 3}]")


def test_warmups_of_callbacks_longer_than_the_training_print_a_warning(call: Call, project: Path) -> None:
    def warned(steps: int) -> str:
        callbacks = "training.callbacks=[norms, {name: batch-warmup, steps: 9}]"
        return str(call("check", "mini.yaml", "-s", callbacks, "-s", f"training.steps={steps}").stderr)

    assert "training.callbacks.1: the warmup of batch-warmup, 9 steps, is longer than the training of 5" in warned(5)
    assert "training.callbacks" not in warned(9)


@pytest.mark.parametrize(
    ("field", "value", "needed", "remedy"),
    [
        ("model.attention.qk_norm_order", "after", "qk_norm", "model.attention.qk_norm=rms"),
        ("model.attention.clip_order", "after", "clip_qkv", "model.attention.clip_qkv=2"),
        ("model.position.temperature_interval", "4", "temperature", "model.position.temperature=0.1"),
        ("model.block", "{name: altup, projection: true}", "d_embedding", "model.block.d_embedding=4"),
        ("model.block", "{name: altup, activation: relu}", "d_embedding", "model.block.d_embedding=4"),
    ],
)
def test_fields_without_effect_print_a_warning(
    call: Call, project: Path, field: str, value: str, needed: str, remedy: str
) -> None:
    given = ["check", "mini.yaml", "-s", f"{field}={value}"]
    assert f"has no effect without {needed}. Set {needed}, or remove" in call(*given).stderr.replace("\n", " ")
    assert "no effect" not in call(*given, "-s", remedy).stderr


def test_a_field_with_an_effect_in_one_layer_prints_no_warning(call: Call, project: Path) -> None:
    given = ["check", "mini.yaml", "-s", "model.n_layers=2", "-s", "model.attention.qk_norm_order=after", "-s"]
    assert "no effect without qk_norm" in call(*given, "model.layers=[{}, {norm: layer}]").stderr
    assert "no effect" not in call(*given, "model.layers=[{}, {attention: {qk_norm: rms}}]").stderr


def test_fields_that_need_others_are_fields() -> None:
    registry = default_registry()
    for kind in registry.kinds():
        for name, entry in registry.entries(kind).items():
            assert {*entry.cls.only_with, *entry.cls.only_with.values()} <= set(entry.cls.model_fields), (kind, name)


def test_partial_without_initial_weights_is_an_error(call: Call, run: Path, project: Path) -> None:
    for command in (["mini.yaml"], ["--resume", run]):
        message = call("train", *command, "--partial", code=2).stderr
        assert "--partial applies to initial weights, and none are given" in message
    sourced = ["-s", f"training.init_from={run}", "-s", "model.n_layers=2", "-s", "training.steps=1"]
    call("train", "mini.yaml", "new", "--partial", "-q", *sourced)


def test_options_change_initial_weights_that_a_spec_names_by_a_path_alone(call: Call, run: Path, project: Path) -> None:
    named = ["-s", "training.init_from=nowhere", "-s", "training.steps=1", "-q"]
    call("train", "mini.yaml", "exact", "--init", run, *named)
    call("train", "mini.yaml", "wider", "--init", run, "--partial", "-s", "model.n_layers=2", *named)
    assert "nowhere contains no weights" in call("train", "mini.yaml", "none", "--partial", *named, code=2).stderr
    Path("base.yaml").write_text("training: {init_from: nowhere}\nextends: mini.yaml")
    Path("loose.yaml").write_text(f"extends: base.yaml\ntraining: {{steps: 1, init_from: {{path: {run}, strict: false}}}}")
    call("train", "loose.yaml", "loose", "-q", "-s", "model.n_layers=2")


def test_layers_in_the_wrong_order_are_not_none(call: Call, run: Path) -> None:
    assert "--layers 3-1: 3-1 has no layers" in call("inspect", run, "-t", "the", "--layers", "3-1", code=2).stderr


def test_a_directory_is_imported_as_gguf_only_with_one_file(call: Call, run: Path, project: Path) -> None:
    directory = project / "files"
    directory.mkdir()
    message = call("import", directory, "imported", "--from", "gguf", code=2).stderr
    assert "files holds no GGUF file" in message
    call("export", run, directory / "one.gguf", "-q")
    shutil.copy(directory / "one.gguf", directory / "two.gguf")
    assert "files holds 2 GGUF files" in call("import", directory, "imported", "--from", "gguf", code=2).stderr


def test_a_tilde_that_the_shell_leaves_is_the_home_directory(
    call: Call, run: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = project / "home"
    shutil.copytree(run, home / "run")
    monkeypatch.setenv("HOME", str(home))
    call("show", "~/run", "--svg=~/model.svg")
    call("inspect", "~/run", "-t", "~", "--output=~/view.json", "-q")
    call("train", "mini.yaml", "~/other", "-q", "-s", "training.steps=1")
    call("runs", "~", "-q")
    assert call("generate", "~/run", "~/the", "-q", "-n", "0").stdout.strip() == "~/the"  # a prompt stays
    assert {path.name for path in home.iterdir()} == {"run", "model.svg", "view.json", "other"}
    assert not list(project.glob("~*"))
