"""The engine `llama.cpp` generates what the native engine does, on random models of the families that GGUF can express."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gptkit_llamacpp import spec as plugin
from gptkit_llamacpp.spec import LlamaCppEngineSpec
from llamacpp_runs import DECODER, GROUPED, context, finished, make_run, opened, request
from typer.testing import CliRunner

import gptkit
from gptkit.cli.main import app
from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry, default_registry
from gptkit.core.registry.plugin import installed
from gptkit.engines.native import NativeSpec
from gptkit.testing import Check, parametrize_checks

MODELS: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "qwen2": {**DECODER, "attention": {**GROUPED, "qkv_bias": True, "output_bias": False}},
    "qwen3": {**DECODER, "attention": {**GROUPED, "d_head": 32, "qk_norm": {"name": "rms", "eps": 1e-5}}},
    "gpt2": {
        **DECODER,
        "position": "learned",
        "attention": {"name": "multi-head", "n_heads": 4, "qkv_bias": True, "output_bias": True},
        "norm": {"name": "layer", "eps": 1e-5},
        "feedforward": {"name": "mlp", "d_hidden": 96, "activation": "gelu-tanh"},
        "head": {"name": "linear", "tied": True},
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_and_scores_equal_native(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", MODELS[name])
    native = NativeSpec().build(context(run))
    requests = [request(run, prompt, log_probabilities=2) for prompt in ("The quick", "é!")]
    expected = finished(native, *requests)
    with opened(run) as engine:
        states = finished(engine, *requests)
        assert [state.history for state in states] == [state.history for state in expected]
        for state, other in zip(states, expected, strict=True):
            assert state.log_probabilities == pytest.approx(other.log_probabilities, abs=5e-3)
            assert [[token for token, _ in top] for top in state.top_log_probabilities] == [
                [token for token, _ in top] for top in other.top_log_probabilities
            ]
        ids = run.tokenizer.encode("brown fox")
        scores, others = engine.score(ids, 1), native.score(ids, 1)
        assert [each.log_probability for each in scores] == pytest.approx(
            [each.log_probability for each in others], abs=5e-3
        )
        assert [each.top[0][0] for each in scores] == [each.top[0][0] for each in others]


def test_tokenizer_that_gguf_cannot_express(tmp_path: Path) -> None:
    """The exported file has no tokenizer, so any of gptkit's can be used."""
    run = make_run(tmp_path / "run", DECODER, "char")
    (expected,) = finished(NativeSpec().build(context(run)), request(run))
    with opened(run) as engine:
        (state,) = finished(engine, request(run))
    assert state.history == expected.history


def test_models_that_gguf_cannot_express_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {**DECODER, "position": "alibi"})
    with pytest.raises(ExternalModelError, match=r"llama\.cpp cannot compute") as raised, opened(run):
        pass
    assert raised.value.hint == "Use --engine native."


@parametrize_checks(LlamaCppEngineSpec(type="f32", cache_type="f32", threads=1))
def test_conformance(spec: LlamaCppEngineSpec, check: Check) -> None:
    check(spec)


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_commands_of_the_native_engine_run_with_llama_cpp(
    run: gptkit.Run, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if "llama.cpp" not in default_registry().entries("engine"):  # the tests run without the distribution
        dist = SimpleNamespace(name="gptkit-llamacpp", version="0.1.0")
        point = SimpleNamespace(name="llamacpp", value=plugin.__name__, dist=dist, load=lambda: plugin)
        monkeypatch.setattr("gptkit.core.registry.lookup._default", Registry([point, *installed()]))
    prompt = ["The quick", "brown"] if command == "generate" else []
    arguments = [command, str(run.directory), *prompt, "-n", "12", "--sampler", "greedy"]
    fields = f"type: f32, cache_type: f32, threads: 1, directory: {tmp_path}"
    plain, other = (
        CliRunner().invoke(app, [*arguments, *more], input="The quick\nbrown\n", env={"COLUMNS": "200"})
        for more in ([], ["--engine", f"{{name: llama.cpp, {fields}}}"])
    )
    assert (plain.exit_code, other.exit_code) == (0, 0), other.stderr
    assert other.stdout == plain.stdout
    for options, message in {
        ("--sampler", "tail-free"): "sampler 'tail-free' with llama.cpp: llama.cpp has no such sampler",
        ("--precision", "int8"): "the engine 'llama.cpp' does not apply a precision of gptkit",
        ("--speculate", "ngram"): "the engine 'llama.cpp' does not decode with a drafter",
        ("--compile",): "the engine 'llama.cpp' does not compile",
    }.items():
        refused = [command, str(run.directory), *prompt, "-n", "12", *options, "--engine", f"{{name: llama.cpp, {fields}}}"]
        result = CliRunner().invoke(app, refused, input="The quick\n", env={"COLUMNS": "200"})
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
