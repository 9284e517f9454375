"""Options by the names of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Call


@pytest.mark.parametrize(
    ("given", "own"),
    [
        (("--temperature", "0.5"), "--sampler temperature=0.5"),
        (("--temp=0.5",), "--sampler temperature=0.5"),
        (("--top_k", "40", "--top-p", "0.9"), "--sampler top-k=40 --sampler top-p=0.9"),
        (("--max-new-tokens", "20", "--greedy"), "--max-tokens 20 --sampler greedy"),
        (("--num-beams", "4"), "--decoding beam=4"),
        (("-p", "a prompt"), "'a prompt'"),
        (("--prompt-file", "a.txt"), "- < a.txt"),
        (("--file", "a.txt"), "- < a.txt"),
        (("--repeat-penalty", "--quiet"), "--sampler repetition-penalty=VALUE"),
    ],
)
def test_options_of_other_programs_are_named(call: Call, run: Path, given: tuple[str, ...], own: str) -> None:
    message = " ".join(call("generate", run, "the", *given, code=2).stderr.replace("│", "").split())
    assert f"No such option: {given[0].partition('=')[0]}. Write: {own}" in message


def test_named_options_are_accepted(call: Call, run: Path) -> None:
    own = ("--sampler", "temperature=0.5", "--sampler", "top-k=40", "--max-tokens", "2")
    assert call("generate", run, "the", *own).stdout.startswith("the")


def test_other_unknown_options_are_reported_as_before(call: Call, run: Path) -> None:
    assert "No such option: --nonsense" in call("generate", run, "--nonsense", "3", code=2).stderr
    assert "Write:" not in call("evaluate", run, "--temperature", "0.5", code=2).stderr


@pytest.mark.parametrize("command", ["train", "export", "eject", "import"])
@pytest.mark.parametrize("option", ["-o", "--output"])
def test_an_option_for_the_path_of_the_result_is_an_argument(call: Call, command: str, option: str) -> None:
    message = " ".join(call(command, "some", option, "there", code=2).stderr.replace("│", "").split())
    assert f"No such option: {option}. Write the path without it: gptkit {command} " in message
    for other in (("bench", "some"), ("diff", "some", "others")):
        assert "without it" not in call(*other, option, "there", code=2).stderr


@pytest.mark.parametrize(
    ("command", "given", "own"),
    [
        ("train", ("--lr", "1e-3"), "--set training.optimizer.learning_rate=1e-3"),
        ("train", ("--steps=10", "--batch_size", "4"), "--set training.steps=10 --set training.batch_size=4"),
        ("train", ("--n-heads", "2"), "--set model.attention.n_heads=2"),
        ("train", ("--device", "cpu"), "--set training.device=cpu"),
        ("train", ("--data", "a.txt"), "--set data.path=a.txt"),
        ("train", ("--num-epochs", "3"), "--set training.steps=N"),
        ("train", ("--force",), "--overwrite"),
        ("evaluate", ("--file", "a.txt"), "--data a.txt"),
        ("bench", ("--batch-size", "4", "--steps", "5", "--warmup", "1"), "--set training.batch_size=4 ╰"),
        ("quantize", ("--bits", "4"), "--precision int4"),
        ("export", ("--format", "gguf"), "--to gguf"),
        ("plan", ("--num-gpus", "4"), "--gpus 4"),
        ("compare", ("--grid", "model.n_layers=1,2"), "--vary model.n_layers=1,2"),
        ("new", ("--preset", "gpt2"), "--from gpt2"),
    ],
)
def test_options_of_other_commands_and_fields_are_named(call: Call, command: str, given: tuple[str, ...], own: str) -> None:
    message = " ".join(call(command, "mini.yaml", *given, code=2).stderr.replace("│", "").split())
    assert f"No such option: {given[0].partition('=')[0]}. Write: {own}" in message


@pytest.mark.parametrize(
    ("command", "option", "arguments"),
    [
        ("train", "--config", "FILE|RUN RUN"),
        ("show", "--model", "FILE|RUN"),
        ("generate", "--checkpoint", "RUN PROMPT"),
        ("data prepare", "--spec", "FILE"),
        ("train", "--run-name", "FILE|RUN RUN"),
    ],
)
def test_options_for_paths_that_are_arguments(call: Call, command: str, option: str, arguments: str) -> None:
    message = " ".join(call(*command.split(), option, "some", code=2).stderr.replace("│", "").split())
    assert f"No such option: {option}. Write the path without it: gptkit {command} {arguments}" in message


def test_what_is_named_is_accepted(call: Call, project: Path) -> None:
    """Each parameter of the table is that of some command, and its option is one of that command's."""
    from typer.main import get_command

    from gptkit.cli.main import app
    from gptkit.cli.other_names import _OPTIONS

    options: dict[str, set[str]] = {}

    def collect(command: Any) -> None:
        for parameter in command.params:
            options.setdefault(parameter.name, set()).update(parameter.opts)
        for name in command.list_commands(None) if hasattr(command, "list_commands") else ():
            collect(command.get_command(None, name))

    collect(get_command(app))
    for (parameter, form, _), others in _OPTIONS.items():
        assert parameter in options, parameter
        assert form in ("{}", "- < {}") or form.split()[0] in options[parameter], form
        assert len(others) == len(set(others)), parameter


@pytest.mark.parametrize(
    ("given", "own"),
    [
        (("data", "mini.yaml"), "Commands: gptkit data prepare, gptkit data check, gptkit data show"),
        (("data", "verify"), "Did you mean: gptkit data check"),
        (("docs", "open"), "Commands: gptkit docs build, gptkit docs serve"),
        (("plugin", "create"), "Did you mean: gptkit plugin new"),
        (("mini.yaml",), "Did you mean: gptkit train mini.yaml"),
        (("finetune",), "Did you mean: gptkit train FILE --init RUN"),
        (("presets",), "Did you mean: gptkit new --list"),
    ],
)
def test_unknown_commands_name_those_that_are_meant(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], own: str
) -> None:
    monkeypatch.chdir(project)
    message = " ".join(call(*given, code=2).stderr.replace("│", "").split())
    assert own in message


def test_epochs_are_explained(call: Call, project: Path) -> None:
    spec = project / "mini.yaml"
    message = call("check", spec, "--set", "training.epochs=3", code=2).stderr
    assert "training.epochs: unknown key 'epochs'; set training.steps: an epoch has" in message
