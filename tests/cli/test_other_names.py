"""Options by the names of other programs."""

from __future__ import annotations

from pathlib import Path

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
