"""Verbs of other programs, quiet commands, syntax errors in plain words, and the sampler of an imported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from interop.test_hostile import altered, sound

import gptkit
from tests.cli.conftest import SPEC, Call

__all__ = ["sound"]


@pytest.mark.parametrize(
    ("verb", "command"),
    [("chat", "gptkit generate RUN --chat"), ("eval", "gptkit evaluate RUN"), ("convert", "gptkit import PATH")],
)
def test_verbs_of_other_programs_name_the_command(call: Call, verb: str, command: str) -> None:
    assert command in " ".join(call(verb, "something", code=2, env={"COLUMNS": "200"}).stderr.split())


def test_quiet_commands_write_nothing(call: Call, project: Path) -> None:
    trained = call("train", "mini.yaml", "run", "-q", "--set", "training.schedule.warmup_steps=1")
    assert (trained.stdout, trained.stderr) == ("", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SPEC.replace("  steps: 3", "\tsteps: 3"), "a tab; indent with spaces, in the line 'steps: 3'"),
        (SPEC.replace("name: mini", "name: mini: one"), "a ': ' inside a value"),
        (SPEC.replace("  batch_size: 2", "   batch_size: 2"), "batch_size: 2"),
        (SPEC.replace("name: mini", 'name: "mini'), "not valid YAML"),
    ],
)
def test_syntax_errors_are_in_plain_words_with_the_line(call: Call, project: Path, text: str, said: str) -> None:
    Path("wrong.yaml").write_text(text)
    assert said in call("check", "wrong.yaml", code=2).stderr


@pytest.mark.parametrize(
    ("generation", "chain"),
    [
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
            [("temperature", {"value": 0.6}), ("top-k", {"k": 50}), ("top-p", {"p": 0.9})],
        ),
        ({"temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1}, None),
        ({"do_sample": False}, [("greedy", {})]),
    ],
)
def test_the_sampler_of_an_imported_model(sound: Path, tmp_path: Path, generation: dict[str, Any], chain: Any) -> None:
    directory = altered(sound, tmp_path)
    (directory / "generation_config.json").write_text(json.dumps(generation))
    run = gptkit.import_model(directory, tmp_path / "run", tokenizer="byte")
    expected = chain or [("repetition-penalty", {"penalty": 1.1}), ("temperature", {"value": 0.7}), ("top-k", {"k": 20})]
    assert [link.name for link in run.spec.sampler] == [name for name, _ in expected]
    for link, (_, fields) in zip(run.spec.sampler, expected, strict=True):
        assert {key: getattr(link, key) for key in fields} == fields


def test_unusable_defaults_of_generation_do_not_stop_an_import(sound: Path, tmp_path: Path) -> None:
    directory = altered(sound, tmp_path)
    (directory / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": -1}))
    run = gptkit.import_model(directory, tmp_path / "run", tokenizer="byte")
    assert [link.name for link in run.spec.sampler] == ["temperature", "top-k"]


def test_an_export_to_a_file_of_no_installed_format(call: Call, run: Path, tmp_path: Path) -> None:
    said = call("export", run, tmp_path / "model.onnx", code=2).stderr
    assert "no installed format writes .onnx files" in said
    assert "gguf, hugging-face" in said
    assert "'onnx'" in call("export", run, tmp_path / "model", "--to", "onnx", code=2).stderr
