"""`gptkit generate --engine` and `gptkit chat --engine`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from gptkit.core.registry import Registry
from gptkit.core.registry.plugin import installed
from gptkit.engines.engine import Engine
from gptkit.engines.native import NativeSpec
from gptkit.kinds.engine import EngineContext, EngineSpec
from tests.support.chat_run import make_chat_run
from tests.support.command_line import Call
from tests.support.fake_plugins import plugin

TEXT = ("the cat", "-n", "40", "--seed", "3")


class BareSpec(EngineSpec):
    """Compute as the native engine does, without its options."""

    name: Literal["bare"] = "bare"
    built: ClassVar[list[Engine]] = []
    closed: ClassVar[list[Engine]] = []

    def build(self, context: EngineContext) -> Engine:
        engine = NativeSpec().build(context)
        self.built.append(engine)
        engine.close = lambda: self.closed.append(engine)  # type: ignore[method-assign]
        return engine


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> type[BareSpec]:
    """Register the engine `bare`."""
    plugins = Registry([plugin("gptkit-bare", [BareSpec]), *installed()])
    monkeypatch.setattr("gptkit.core.registry.lookup._default", plugins)
    BareSpec.built.clear()
    BareSpec.closed.clear()
    return BareSpec


@pytest.mark.parametrize("engine", ["bare", "native", "{name: native, prefill_chunk: 3}"])
@pytest.mark.parametrize("options", [(), ("--count", "12"), ("--overflow", "stop", "--no-echo"), ("--stop", "sat")])
def test_text_is_that_without_an_engine(call: Call, run: Path, engine: str, options: tuple[str, ...]) -> None:
    plain = call("generate", run, *TEXT, *options)
    result = call("generate", run, *TEXT, *options, "--engine", engine)
    assert result.stdout == plain.stdout
    notes = [re.sub(r"[\d,.]+ tokens/s", "N tokens/s", " ".join(each.stderr.split())) for each in (plain, result)]
    assert notes[0] == notes[1]
    assert len(BareSpec.built) == len(BareSpec.closed) == (engine == "bare")


def test_json_trace_and_several_prompts(call: Call, run: Path) -> None:
    arguments = ("generate", run, "the cat", "a mat", "-n", "20", "--seed", "3", "--json", "--trace", "-")
    assert json.loads(call(*arguments, "--engine", "native").stdout) == json.loads(call(*arguments).stdout)


def test_native_engine_takes_a_drafter_and_its_fields(call: Call, run: Path) -> None:
    greedy = ("generate", run, "the quick brown fox jumps over the lazy dog", "-n", "40", "--sampler", "greedy")
    plain = call(*greedy)
    for engine in (
        ("native", "--speculate", "{name: ngram, min_n: 1}"),
        ("{name: native, drafter: {name: ngram, min_n: 1}}",),
    ):
        result = call(*greedy, "--engine", *engine)
        assert result.stdout == plain.stdout
        assert re.search(r"\d+ of \d+ drafted tokens accepted", " ".join(result.stderr.split()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "bare", "--trace", "-"), "the engine 'bare' does not report what each sampler left Omit --trace"),
        (("--engine", "bare", "--speculate", "ngram"), "the engine 'bare' does not decode with a drafter"),
        (("--engine", "bare", "--compile"), "the engine 'bare' does not compile decode steps Omit --compile"),
        (("--engine", "bare", "--precision", "bf16"), "the engine 'bare' does not apply a precision"),
        (("--engine", "bare", "--decoding", "beam"), "cannot search with the decoding 'beam' Use --decoding sample"),
        (("--engine", "native", "--decoding", "beam"), "cannot search with the decoding 'beam'"),
        (("--engine", "bar"), "did you mean 'bare'?"),
        (("--engine", "{name: bare, threads: 3}"), "threads"),
        (("--engine", "bare", "--sampler", "structured"), "structured"),
        (("--engine", "bare", "--overflow", "stop"), "the model's context 16"),
    ],
)
def test_what_an_engine_cannot_do_is_one_error(call: Call, run: Path, options: tuple[str, ...], message: str) -> None:
    result = call("generate", run, "the cat sat on the mat", "-n", "4", *options, code=2)
    assert result.stdout.strip() == ""
    error = " ".join(result.stderr.replace("hint:", "").split())
    assert message in error
    assert error.count("error:") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize("engine", ["bare", "{name: native, drafter: {name: ngram, min_n: 1}}"])
def test_chat_gives_the_replies_of_the_model(call: Call, tmp_path: Path, engine: str) -> None:
    pytest.importorskip("jinja2")
    run = make_chat_run(tmp_path / "run")
    lines = "hello there\nhello you\n/retry\n/undo\n/tokens 5\nuser\n/stats\n"
    arguments: tuple[Any, ...] = ("chat", run, "-n", "12", "--system", "hello", "--seed", "4")
    plain, result = call(*arguments, input=lines), call(*arguments, "--engine", engine, input=lines)
    assert result.stdout == plain.stdout
    numbers = re.compile(r"[\d.,]+ (s|tokens/s)\b|, \d+ of \d+ drafted tokens accepted")
    shown = [numbers.sub("", " ".join(each.stderr.split())) for each in (plain, result)]
    # The last token of a text is not in the cache of a session.
    assert re.sub(r"context .*", "", shown[0]) == re.sub(r"context .*", "", shown[1])
    assert len(BareSpec.built) == len(BareSpec.closed) == (engine == "bare")


def test_chat_refuses_what_the_engine_lacks(call: Call, tmp_path: Path) -> None:
    run = make_chat_run(tmp_path / "run")
    for option in (("--compile",), ("--speculate", "ngram"), ("--precision", "int8")):
        result = call("chat", run, "--engine", "bare", *option, input="hello\n", code=2)
        assert "the engine 'bare' does not" in " ".join(result.stderr.split())
