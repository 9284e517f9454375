"""The engine on a fake of vLLM (`fake_vllm.py`), which computes with transformers."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from gptkit_vllm import spec as plugin
from gptkit_vllm.spec import VllmEngineSpec
from typer.testing import CliRunner
from vllm_runs import LLAMA, assert_same_as_native, drain, finished, make_run, opened, request

import gptkit
from gptkit.cli.main import app
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry, default_registry
from gptkit.core.registry.plugin import installed
from gptkit.engines.engine import Progress
from gptkit.inference import Request
from gptkit.inference.samplers import sampler_chain
from gptkit.testing import Check, parametrize_checks


def test_tokens_and_scores_equal_native(run: gptkit.Run, own_run: gptkit.Run, vllm: Any) -> None:
    for each, has_code in ((run, False), (own_run, True)):
        with opened(each, context=48) as engine:
            assert_same_as_native(engine, each)
        options = vllm.LLM.opened[-1]
        assert options["trust_remote_code"] is has_code
        assert (options["dtype"], options["max_model_len"], options["max_num_seqs"]) == ("float32", 48, 2)
        assert options["kv_cache_memory_bytes"] == 2**28
        assert options["skip_tokenizer_init"]


@parametrize_checks(VllmEngineSpec(dtype="float32"))
def test_conformance(spec: VllmEngineSpec, check: Check, vllm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    check(spec)


def test_tokenizer_that_transformers_cannot_express(tmp_path: Any, vllm: Any) -> None:
    """gptkit encodes and decodes, so that vLLM needs no tokenizer."""
    run = make_run(tmp_path / "run", LLAMA, "char")
    with opened(run) as engine:
        assert_same_as_native(engine, run)


def test_stop_strings_and_stop_tokens_end_a_text(run: gptkit.Run, vllm: Any) -> None:
    with opened(run) as engine:
        (whole,) = finished(engine, request(run))
        token = whole.history[len(whole.request.prompt_ids) + 4]
        (state,) = finished(engine, request(run, stop_ids=frozenset([token])))
        assert state.finish in ("stop", "end")
        assert token not in state.history[len(state.request.prompt_ids) :]
        piece = next(character for character in whole.text.text if character.isprintable() and character != "\ufffd")
        (state,) = finished(engine, request(run, stop=(piece,)))
        assert state.finish == "stop"
        assert piece not in state.text.text
        assert not engine._engine.sequences, "the request runs on in vLLM"
        (state,) = finished(engine, request(run, max_new_tokens=0))
        assert (state.finish, state.n_generated) == ("length", 0)


def test_more_requests_than_places_and_cancellation(run: gptkit.Run, vllm: Any) -> None:
    with opened(run) as engine:
        states = [engine.submit(request(run, max_new_tokens=50)) for _ in range(4)]
        assert (engine.n_running, engine.n_waiting) == (2, 2)
        engine.cancel(states[0])
        engine.cancel(states[3])
        assert states[0].finish == states[3].finish == "interrupted"
        seen: dict[Any, list[Progress]] = {state: [] for state in states}
        drain(engine, seen)
        assert not seen[states[0]]
        assert not seen[states[3]]
        assert states[1].history == states[2].history
        engine.submit(request(run))
        engine.reset()
        assert engine.idle
        assert finished(engine, request(run))[0].finish == "length"


def test_scoring_keeps_the_tokens_of_running_requests(run: gptkit.Run, vllm: Any) -> None:
    with opened(run) as engine:
        (alone,) = finished(engine, request(run))
        state = engine.submit(request(run))
        seen: dict[Any, list[Progress]] = {state: []}
        assert len(engine.score(run.tokenizer.encode("brown fox"))) == len(run.tokenizer.encode("brown fox")) - 1
        drain(engine, seen)
        assert state.history == alone.history
        assert [token for part in seen[state] for token in part.ids] == alone.history[len(alone.request.prompt_ids) :]


def test_texts_beyond_the_context(run: gptkit.Run, vllm: Any) -> None:
    with opened(run) as engine:
        (state,) = finished(engine, request(run, max_new_tokens=150))
        assert (state.finish, state.n_generated) == ("length", 150)
        (state,) = finished(engine, request(run, max_new_tokens=150, overflow="stop"))
        assert state.finish == "length"
        assert len(state.history) == run.model.context_length
        with pytest.raises(GptkitError, match="context"):
            engine.submit(request(run, "x" * 64, overflow="stop"))
        assert finished(engine, request(run, "x" * 200))[0].n_generated == 12
        chain = sampler_chain(["repetition-penalty"])
        with pytest.raises(GptkitError, match="may exceed the context"):
            engine.check(request(run, sampler=chain, max_new_tokens=60))


def test_minimum_length_needs_an_end_token(run: gptkit.Run, vllm: Any) -> None:
    end = run.tokenizer.end_id
    assert end is not None
    always = {"name": "logit-bias", "bias": {end: 1000.0}}
    chain = sampler_chain([always, {"name": "min-length", "tokens": 5}, "greedy"])
    with opened(run) as engine:
        (state,) = finished(engine, request(run, sampler=chain, stop_ids=frozenset([end])))
        assert (state.finish, state.n_generated) == ("end", 5)
        with pytest.raises(GptkitError, match="'min-length' with vLLM"):
            engine.check(request(run, sampler=chain))


def test_invalid_requests_are_refused(run: gptkit.Run, vllm: Any) -> None:
    with opened(run) as engine:
        with pytest.raises(GptkitError, match="token 9999"):
            engine.submit(Request([9999]))
        with pytest.raises(GptkitError, match="what each sampler left"):
            engine.check(request(run, trace=3))


def test_an_error_of_vllm_is_reported_with_its_reason(run: gptkit.Run, vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("No available memory\n for the cache blocks")

    monkeypatch.setattr(vllm, "LLM", refuse)
    with pytest.raises(GptkitError, match="No available memory for the cache blocks") as raised, opened(run):
        pass
    assert raised.value.hint == "Use --engine native."


def test_a_model_that_fails_at_its_first_token_is_refused(
    run: gptkit.Run, vllm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("Unsupported CPU attention configuration: head_dim=16")

    monkeypatch.setattr("fake_vllm._Engine.step", fail)
    with pytest.raises(GptkitError, match=r"vLLM cannot compute .*: Unsupported CPU attention .*head_dim=16"), opened(run):
        pass


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine in the registry; the tests run without the distribution too."""
    if "vllm" not in default_registry().entries("engine"):
        dist = SimpleNamespace(name="gptkit-vllm", version="0.1.0")
        point = SimpleNamespace(name="vllm", value=plugin.__name__, dist=dist, load=lambda: plugin)
        monkeypatch.setattr("gptkit.core.registry.lookup._default", Registry([point, *installed()]))


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_commands_of_the_native_engine_run_with_vllm(
    run: gptkit.Run, command: str, registered: None, vllm: Any, tmp_path: Any
) -> None:
    prompt = ["The quick", "brown"] if command == "generate" else []
    arguments = [command, str(run.directory), *prompt, "-n", "12", "--sampler", "greedy"]
    engine = ["--engine", f"{{name: vllm, dtype: float32, directory: {tmp_path}}}"]
    plain, other = (
        CliRunner().invoke(app, [*arguments, *more], input="The quick\nbrown\n", env={"COLUMNS": "200"})
        for more in ([], engine)
    )
    assert (plain.exit_code, other.exit_code) == (0, 0), other.stderr
    assert other.stdout == plain.stdout
    for options, message in {
        ("--sampler", "tail-free"): "sampler 'tail-free' with vLLM: vLLM has no such sampler",
        ("--precision", "int8"): "the engine 'vllm' does not apply a precision of gptkit",
        ("--speculate", "ngram"): "the engine 'vllm' does not decode with a drafter",
        ("--compile",): "the engine 'vllm' does not compile",
    }.items():
        refused = [command, str(run.directory), *prompt, "-n", "12", *options, *engine]
        result = CliRunner().invoke(app, refused, input="The quick\n", env={"COLUMNS": "200"})
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())


def test_missing_package_is_reported_with_the_command_that_installs_it(
    run: gptkit.Run, registered: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not installed
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    arguments = ["generate", str(run.directory), "The quick", "--engine", "vllm"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    message = " ".join(result.stderr.split())
    assert "the engine 'vllm' requires the package vllm, which is not installed" in message
    assert "pip install 'gptkit-vllm[gpu]'" in message
    assert not list(tmp_path.rglob("config.json")), "the run was exported"
