"""The engine `llama.cpp` generates what the native engine does, on random models of the families that GGUF can express."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from gptkit_llamacpp.engine import LlamaCpp
from gptkit_llamacpp.samplers import parameters
from gptkit_llamacpp.spec import LlamaCppEngineSpec

import gptkit
from gptkit.core.errors import ExternalModelError, GptkitError
from gptkit.engines.engine import Engine, Progress
from gptkit.engines.native import NativeSpec
from gptkit.inference import Request
from gptkit.inference.samplers import sampler_chain
from gptkit.kinds.engine import EngineContext
from gptkit.kinds.sampler import SamplerContext, SamplerSequence
from gptkit.serving.loading import engine_context

GREEDY = sampler_chain(["greedy"])
GROUPED = {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "d_head": 16}
DECODER: dict[str, Any] = {
    "context_length": 64,
    "d_model": 64,
    "n_layers": 2,
    "position": {"name": "rotary", "base": 5000},
    "attention": GROUPED,
    "norm": {"name": "rms", "eps": 1e-5},
    "feedforward": {"name": "gated", "d_hidden": 96},
    "head": {"name": "linear", "tied": False},
}
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


def make_run(path: Path, model: dict[str, Any], tokenizer: Any = "byte") -> gptkit.Run:
    """Train a run of no steps, and give it random weights."""
    corpus = path.parent / "corpus.txt"
    corpus.write_text("The quick brown fox jumps over the lazy dog. " * 40)
    spec = {
        "name": "tiny",
        "tokenizer": tokenizer,
        "model": model,
        "data": {"name": "text", "path": str(corpus)},
        "training": {"steps": 1, "batch_size": 1, "device": "cpu"},
    }
    run = gptkit.train(spec, path)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            noise = torch.randn(parameter.shape) * (0.15 if parameter.dim() > 1 else 0.3)
            parameter.copy_(noise + (1 if "norm" in name and name.endswith("weight") else 0))
    run.save(path.parent / "random")
    return gptkit.load(path.parent / "random", device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    return make_run(tmp_path_factory.mktemp("llama") / "run", DECODER)


@contextmanager
def opened(run: gptkit.Run, *, max_batch: int = 2, **options: Any) -> Iterator[LlamaCpp]:
    spec = LlamaCppEngineSpec(
        **{"type": "f32", "cache_type": "f32", "threads": 1, "directory": str(run.directory.parent / "cache"), **options}
    )
    engine = spec.build(context(run, max_batch))
    try:
        yield engine
    finally:
        engine.close()


def context(run: gptkit.Run, max_batch: int = 2) -> EngineContext:
    return engine_context(run, max_batch)


def request(run: gptkit.Run, prompt: str = "The quick", **settings: Any) -> Request:
    return Request(run.tokenizer.encode(prompt), **{"sampler": GREEDY, "max_new_tokens": 12, **settings})


def finished(engine: Engine, *requests: Request) -> list[Any]:
    """Run requests to their end, and check that what is reported in steps equals their states."""
    states = [engine.submit(each) for each in requests]
    seen: dict[Any, list[Progress]] = {state: [] for state in states}
    until(lambda: collect(engine, seen))
    for state, parts in seen.items():
        assert [token for part in parts for token in part.ids] == state.history[len(state.request.prompt_ids) :]
        assert "".join(part.text for part in parts) == state.text.text
        assert [part.finish for part in parts] == [None] * (len(parts) - 1) + [state.finish]
    return states


def collect(engine: Engine, seen: dict[Any, list[Progress]]) -> bool:
    for each in engine.step():
        seen[each.state].append(each)
    return engine.idle


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "the engine did not become idle"


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


def test_stop_strings_and_stop_tokens_end_a_text(run: gptkit.Run) -> None:
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
        (state,) = finished(engine, request(run, max_new_tokens=0))
        assert (state.finish, state.n_generated) == ("length", 0)


def test_more_requests_than_slots_and_cancellation(run: gptkit.Run) -> None:
    with opened(run) as engine:
        states = [engine.submit(request(run, max_new_tokens=50)) for _ in range(4)]
        assert (engine.n_running, engine.n_waiting) == (2, 2)
        engine.cancel(states[0])
        engine.cancel(states[3])
        assert states[0].finish == states[3].finish == "interrupted"
        seen: dict[Any, list[Progress]] = {state: [] for state in states}
        until(lambda: collect(engine, seen))
        assert not seen[states[0]]
        assert not seen[states[3]]
        assert states[1].history == states[2].history
        engine.submit(request(run))
        engine.reset()
        assert engine.idle
        assert finished(engine, request(run))[0].finish == "length"


def test_equal_seeds_give_equal_texts(run: gptkit.Run) -> None:
    warm = {"sampler": sampler_chain([{"name": "temperature", "value": 2.0}])}
    with opened(run, max_batch=1) as engine:
        one, same, other, stream = finished(
            engine, *(request(run, **warm, **each) for each in ({}, {}, {"seed": 1}, {"stream": 1}))
        )
    assert one.history == same.history
    assert len({tuple(state.history) for state in (one, other, stream)}) == 3


def test_texts_beyond_the_context(run: gptkit.Run) -> None:
    with opened(run) as engine:
        (state,) = finished(engine, request(run, max_new_tokens=150))
        assert (state.finish, state.n_generated) == ("length", 150)
        (state,) = finished(engine, request(run, max_new_tokens=150, overflow="stop"))
        assert state.finish == "length"
        assert run.model.context_length - 1 <= len(state.history) <= run.model.context_length + 1
        with pytest.raises(GptkitError, match="context"):
            engine.submit(request(run, "x" * 64, overflow="stop"))
        assert finished(engine, request(run, "x" * 200))[0].n_generated == 12
        with pytest.raises(GptkitError, match="may exceed the context"):
            engine.check(request(run, sampler=sampler_chain(["mirostat"]), max_new_tokens=60))


CHAINS: list[list[Any]] = [
    [],
    [{"name": "temperature", "value": 1.7}],
    [{"name": "top-k", "k": 7}, {"name": "temperature", "value": 0.6}],
    [{"name": "temperature", "value": 0.6}, {"name": "top-p", "p": 0.7}],
    [{"name": "top-p", "p": 0.7}, {"name": "temperature", "value": 0.6}],
    [{"name": "min-p", "p": 0.2}],
    [{"name": "typical", "p": 0.6}],
    [{"name": "top-n-sigma", "n": 1.5}],
    [{"name": "dynamic-temperature", "value": 1.0, "range": 0.5}],
    [{"name": "logit-bias", "bias": {65: 3.0}}, {"name": "suppress-tokens", "tokens": (66, 141)}],
    [{"name": "repetition-penalty", "penalty": 1.5}, {"name": "presence-penalty", "penalty": 0.5}],
    [{"name": "frequency-penalty", "penalty": 0.7}, {"name": "top-k", "k": 20}],
    [{"name": "dry", "breakers": (), "allowed_length": 1}],
    [{"name": "temperature", "value": 2.0}, {"name": "mirostat-v2", "tau": 2.0}],
    [{"name": "mirostat", "tau": 3.0}],
    [{"name": "llama.cpp", "temperature": 0.7, "repeat_penalty": 1.2, "top_n_sigma": 2.0}],
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_distribution_equals_that_of_the_chain(run: gptkit.Run, chain: list[Any]) -> None:
    samplers, ids = sampler_chain(chain), run.tokenizer.encode("the cat the dog the")
    with torch.inference_mode():
        logits_V = run.model(torch.tensor([ids])).logits[0, -1].float()
    built = SamplerSequence(samplers, SamplerContext(len(logits_V), 1, run.tokenizer))
    expected_V = built(logits_V[None], [ids])[0].softmax(dim=-1)
    with opened(run) as engine:
        body = {"prompt": ids, "n_predict": 1, "n_probs": 300, "post_sampling_probs": True, "stream": False}
        answer = engine._open_server.handle_completions({**body, **parameters(samplers, 64)})
    (content,) = answer["choices"][0]["logprobs"]["content"]
    result_V = torch.zeros_like(expected_V)
    for each in content["top_probs"]:
        result_V[each["id"]] = each["prob"]
    torch.testing.assert_close(result_V, expected_V, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (["tail-free"], "'tail-free' with llama.cpp: llama.cpp has no such sampler"),
        ([{"name": "top-k", "k": 3}, {"name": "top-k", "k": 2}], "'top-k'.* only once"),
        (["top-k", {"name": "logit-bias", "bias": {1: 1.0}}], "'logit-bias'.* applies biases first"),
        (["top-k", "mirostat"], "'mirostat'.* only a temperature"),
        (["dry"], "'dry'.* breakers"),
        ([{"name": "repetition-penalty", "prompt": False}], "'repetition-penalty'.* prompt: true"),
        (["presence-penalty", "repetition-penalty"], "'repetition-penalty'.* place it first"),
        (["adaptive-p", "top-k"], "'top-k'.* no sampler can follow adaptive-p"),
    ],
)
def test_samplers_that_llama_cpp_lacks_are_refused(chain: list[Any], reason: str) -> None:
    with pytest.raises(GptkitError, match=reason) as raised:
        parameters(sampler_chain(chain), 64)
    assert "native" in str(raised.value.hint)


def test_greedy_ignores_samplers_that_keep_the_most_likely_token() -> None:
    chain = ["repetition-penalty", "top-k", {"name": "temperature", "value": 0.5}, "greedy", "tail-free"]
    assert parameters(sampler_chain(chain), 64)["samplers"] == ["penalties", "temperature"]
    assert parameters(sampler_chain(chain), 64)["temperature"] == 0
    chain = [{"name": "temperature", "value": 0.5}, "typical", "greedy"]
    assert parameters(sampler_chain(chain), 64)["samplers"] == ["temperature", "typ_p", "top_k"]


def test_models_that_gguf_cannot_express_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {**DECODER, "position": "alibi"})
    with pytest.raises(ExternalModelError, match=r"llama\.cpp cannot compute") as raised, opened(run):
        pass
    assert raised.value.hint == "Use --engine native."


def test_invalid_requests_are_refused(run: gptkit.Run) -> None:
    with opened(run) as engine:
        with pytest.raises(GptkitError, match="token 9999"):
            engine.submit(Request([9999]))
        with pytest.raises(GptkitError, match="what each sampler left"):
            engine.check(request(run, trace=3))


def test_files_are_reused_and_bounded(run: gptkit.Run, tmp_path: Path) -> None:
    notes = tmp_path / "notes.gguf"
    notes.write_bytes(b"GGUF of the user")
    for element in ("f32", "f16", "bf16", "q8_0", "q4_0"):
        with opened(run, type=element, directory=str(tmp_path), keep=2) as engine:
            assert finished(engine, request(run))[0].n_generated == 12
    files = sorted(tmp_path.glob("gptkit-*.gguf"), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 2
    assert notes.exists()
    assert files[1].stat().st_size < files[0].stat().st_size
    written = files[1].stat().st_ino
    with opened(run, type="q4_0", directory=str(tmp_path), keep=2):
        assert files[1].stat().st_ino == written


@pytest.mark.parametrize(("type", "bound"), [("f16", 0.005), ("q8_0", 0.06), ("q4_0", 0.4)])
def test_quantized_weights_are_close(run: gptkit.Run, type: str, bound: float) -> None:
    ids = run.tokenizer.encode("The quick brown fox")
    exact = NativeSpec().build(context(run)).score(ids)
    with opened(run, type=type) as engine:
        differences = [
            abs(one.log_probability - other.log_probability) for one, other in zip(engine.score(ids), exact, strict=True)
        ]
    assert sum(differences) / len(differences) < bound
