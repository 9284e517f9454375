"""Prompts from stdin, prompts longer than the context, and messages on stderr during generation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Call


def test_stdin_is_decoded_as_corpora_are(call: Call, run: Path) -> None:
    message = call("generate", run, "-", "-n", "0", input="\ufeffthe\r\ncat é".encode()).stdout
    assert message == "the\ncat é\n"


def test_stdin_in_another_encoding_names_the_byte(call: Call, run: Path) -> None:
    message = call("generate", run, "-", "-n", "0", input="the\ncat é".encode("latin-1"), code=2).stderr
    assert "stdin:2: byte 8 is not UTF-8" in message
    assert "iconv -f ISO-8859-1" in message
    assert "UTF-16" in call("generate", run, "-", input="the".encode("utf-16"), code=2).stderr


def test_a_prompt_longer_than_the_context_is_reported(call: Call, run: Path) -> None:
    result = call("generate", run, "x" * 40, "-n", "1")
    assert result.stderr.count("the prompt has 40 tokens and the context 16: the first 24 are discarded") == 1
    assert "discarded" not in call("generate", run, "short", "-n", "1").stderr
    data = json.loads(call("generate", run, "x" * 40, "short", "-n", "1", "--json").stdout)
    assert [each["discarded_prompt_tokens"] for each in data] == [24, 0]


def test_overflow_stop_refuses_long_prompts_and_ends_the_text(call: Call, run: Path) -> None:
    refused = call("generate", run, "x" * 40, "--overflow", "stop", code=2)
    assert "40 tokens" in refused.stderr
    assert refused.stdout == ""
    data = json.loads(call("generate", run, "x" * 10, "-n", "50", "--overflow", "stop", "--json").stdout)
    assert data[0]["tokens"] <= 7


@pytest.mark.parametrize(("sampler", "shown"), [("greedy", False), ("temperature=0.8", True)])
def test_seed_is_shown_when_sampling(call: Call, run: Path, sampler: str, shown: bool) -> None:
    assert ("seed" in call("generate", run, "a", "-n", "1", "--sampler", sampler).stderr) == shown


def test_late_error_starts_a_new_line(call: Call, run: Path) -> None:
    assert call("generate", run, "the cat", "--stop", "", code=2).stdout == ""
