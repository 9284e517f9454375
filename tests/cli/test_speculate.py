"""`gptkit generate --speculate`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.chat_run import make_chat_run
from tests.support.command_line import Call

ARGUMENTS = ("the quick brown fox jumps over the lazy dog", "-n", "40", "--seed", "3")


@pytest.mark.parametrize("drafter", ["ngram", "ngram=4", "{name: ngram, min_n: 1}"])
def test_text_is_that_of_plain_decoding(call: Call, run: Path, drafter: str) -> None:
    plain = call("generate", run, *ARGUMENTS, "--sampler", "greedy")
    result = call("generate", run, *ARGUMENTS, "--sampler", "greedy", "--speculate", drafter)
    assert result.stdout == plain.stdout
    assert "drafted" not in plain.stderr
    if "min_n" in drafter:  # every letter of the reply occurs in the prompt
        assert re.search(r"\d+ of \d+ drafted tokens accepted", " ".join(result.stderr.split()))


def test_the_run_itself_as_draft_run(call: Call, run: Path) -> None:
    plain = call("generate", run, *ARGUMENTS)
    result = call("generate", run, *ARGUMENTS, "--speculate", f"{{name: draft-run, run: {run}, min_probability: 0}}")
    assert result.stdout == plain.stdout
    assert "drafted tokens accepted" in " ".join(result.stderr.split())


@pytest.mark.parametrize("engine", [(), ("--engine", "native")])
def test_prediction_modules(call: Call, tmp_path: Path, engine: tuple[str, ...]) -> None:
    run = make_chat_run(tmp_path / "run", head="multi-token")
    drafter = ("--speculate", "{name: mtp, min_probability: 0}")
    plain = call("generate", run, "hello there", *ARGUMENTS[1:])
    result = call("generate", run, "hello there", *ARGUMENTS[1:], *drafter, *engine)
    assert result.stdout == plain.stdout
    assert "drafted tokens accepted" in " ".join(result.stderr.split())
    lines = "hello there\nhello you\n/stats\n"
    plain = call("chat", run, *ARGUMENTS[1:], input=lines)
    result = call("chat", run, *ARGUMENTS[1:], *drafter, *engine, input=lines)
    assert result.stdout == plain.stdout
    assert "drafted tokens accepted" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("drafter", "message"),
    [
        ("n-gram", "ngram"),
        ("ngram=many", "--speculate ngram=many"),
        ("ngram=40", "must be at most 15"),
        ("draft-run", "run"),
        ("draft-run=nowhere", "nowhere"),
        ("mtp", "requires a model whose head has prediction modules"),
    ],
)
def test_wrong_drafters_are_one_error(call: Call, run: Path, drafter: str, message: str) -> None:
    result = call("generate", run, *ARGUMENTS, "--speculate", drafter, code=2)
    assert result.stdout == ""
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
