"""The engine `llama.cpp` generates what the native engine does, on random models of the families that GGUF can express."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gptkit_llamacpp import spec as plugin
from gptkit_llamacpp.engine import LlamaCpp
from gptkit_llamacpp.quantization import elements
from gptkit_llamacpp.samplers import parameters
from gptkit_llamacpp.spec import LlamaCppEngineSpec
from torch import Tensor
from typer.testing import CliRunner

import gptkit
from gptkit.cli.main import app
from gptkit.core.errors import ExternalModelError, GptkitError
from gptkit.core.registry import Registry, default_registry
from gptkit.core.registry.plugin import installed
from gptkit.engines.engine import Engine, Progress
from gptkit.engines.native import NativeSpec
from gptkit.inference import Request
from gptkit.inference.chain import Chain
from gptkit.inference.samplers import sampler_chain
from gptkit.kinds.engine import EngineContext
from gptkit.kinds.sampler import SamplerContext, SamplerSequence
from gptkit.runs.engines import engine_context
from gptkit.testing import Check, parametrize_checks

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


def decoded(packed: Tensor, type: str, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the weights of packed blocks of 32, and the step d of each weight's block.

    q8_0: d (f16), 32 × int8, w = d · q; q4_0: d (f16), 16 bytes, low halves first, w = d · (q - 8).
    """
    blocks = packed.view(-1, {"q8_0": 34, "q4_0": 18}[type])
    steps = blocks[:, :2].clone().view(torch.float16).float()
    data = blocks[:, 2:]
    if type == "q8_0":
        numbers = data.clone().view(torch.int8).float()
    else:
        numbers = torch.cat((data & 15, data >> 4), dim=1).float() - 8
    return (numbers * steps).view(shape), steps.expand_as(numbers).reshape(shape).abs()


@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_no_weight_differs_by_more_than_its_rounding(type: str) -> None:
    """q8_0 rounds to the nearest step. q4_0 has the numbers -8 … 7, d = w / -8 of the largest |w|, so that a weight of the
    opposite sign is cut off at 7 steps: at most one step. The step itself is rounded to f16: 2^-11 of the value."""
    weights = torch.randn(48, 96, generator=torch.Generator().manual_seed(3))
    element = elements(type)("blk.0.ffn_up.weight", tuple(weights.shape))
    values, steps = decoded(element.pack(weights), type, weights.shape)
    bound = steps * (0.5 if type == "q8_0" else 1.0) + weights.abs() * 2**-11 + 1e-7
    assert bool(((values - weights).abs() <= bound).all())
    assert float((values - weights).abs().max()) > 0.3 * float(steps.min())


@pytest.mark.parametrize(("type", "bound"), [("f16", 0.02), ("q8_0", 0.1), ("q4_0", 0.2)])
def test_scores_equal_those_of_the_quantized_weights(run: gptkit.Run, type: str, bound: float) -> None:
    """No score differs by more than rounding from that of a model with the weights as they are stored. llama.cpp also
    quantizes activations, to 8 bits in blocks of 32: each differs by up to 2^-8 of the block's largest, so that a product
    of n terms has a standard deviation of about 2^-8 · |w| · max|x| · (n / 3)^½, 0.02 to 0.04 in each of 14 products."""
    rounded = gptkit.load(run.directory, device="cpu")
    with torch.no_grad():
        for name, parameter in rounded.model.named_parameters():
            if parameter.dim() < 2:
                continue
            if type == "f16":
                parameter.copy_(parameter.half().float())
            else:
                own = "q8_0" if name.startswith(("embedding.", "head.")) else type
                packed = elements(own)("blk.0.ffn_up.weight", tuple(parameter.shape)).pack(parameter.data)
                parameter.copy_(decoded(packed, own, parameter.shape)[0])
    ids = run.tokenizer.encode("The quick brown fox")
    expected = NativeSpec().build(context(rounded)).score(ids)
    with opened(run, type=type) as engine:
        scores = engine.score(ids)
    for score, other in zip(scores, expected, strict=True):
        assert score.log_probability == pytest.approx(other.log_probability, abs=bound)


def test_later_starts_do_not_read_the_weights(run: gptkit.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(run, directory=str(tmp_path)):
        pass
    (file,) = tmp_path.glob("*.gguf")
    written = file.stat().st_ino

    def refuse(*_: Any) -> Any:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr("gptkit_llamacpp.file._Rows.get", refuse)
    with opened(run, directory=str(tmp_path)) as engine:
        assert finished(engine, request(run))[0].n_generated == 12
    assert file.stat().st_ino == written
    other = run.directory.parent / "other"
    with torch.no_grad():
        changed = gptkit.load(run.directory, device="cpu")
        next(changed.model.parameters()).add_(0.5)
        changed.save(other)
    monkeypatch.undo()
    with opened(gptkit.load(other, device="cpu"), directory=str(tmp_path)):
        pass
    assert len(list(tmp_path.glob("*.gguf"))) == 2


@pytest.mark.parametrize(
    "chain",
    [
        [{"name": "mirostat", "tau": 3.0, "eta": 0.3}],
        [{"name": "temperature", "value": 1.5}, {"name": "mirostat-v2", "tau": 2.0, "eta": 0.3}],
        [{"name": "adaptive-p", "target": 0.3, "decay": 0.5}],
    ],
    ids=str,
)
def test_samplers_that_follow_the_drawn_tokens(run: gptkit.Run, chain: list[Any]) -> None:
    """At each of 12 tokens, llama.cpp's distribution is that of the chain, which has seen the same draws before."""
    samplers, ids = sampler_chain(chain), run.tokenizer.encode("the cat the dog")
    with opened(run) as engine:
        body = {"prompt": ids, "n_predict": 12, "n_probs": 300, "post_sampling_probs": True, "stream": False, "seed": 11}
        answer = engine._open_server.handle_completions({**body, **parameters(samplers, 64)})
    links = [spec.build(SamplerContext(run.tokenizer.vocab_size, 1, run.tokenizer)) for spec in samplers]
    differences = []
    for content in answer["choices"][0]["logprobs"]["content"]:
        with torch.inference_mode():
            logits_V = run.model(torch.tensor([ids])).logits[0, -1].float()
        scores_BV = logits_V[None]
        for link in links:
            scores_BV = link(scores_BV, [ids])
        expected_V = scores_BV[0].softmax(dim=-1)
        result_V = torch.zeros_like(expected_V)
        for each in content["top_probs"]:
            result_V[each["id"]] = each["prob"]
        torch.testing.assert_close(result_V, expected_V, atol=2e-3, rtol=1e-2)
        fresh = SamplerSequence(samplers, SamplerContext(len(logits_V), 1, run.tokenizer))
        fresh_V = fresh(logits_V[None], [ids])[0].softmax(dim=-1)
        differences.append(float((expected_V - fresh_V).abs().max()))
        for link in links:
            link.chosen([content["id"]], [float(expected_V[content["id"]].log())])
        ids = [*ids, content["id"]]
    # What the chain would leave without its memory differs by several times the tolerance.
    assert sum(each > 0.008 for each in differences) > 1, differences


@pytest.mark.parametrize(
    "chain",
    [
        [{"name": "xtc", "probability": 0.5, "threshold": 0.1}, {"name": "temperature", "value": 0.7}],
        [{"name": "adaptive-p", "target": 0.3, "decay": 0.5}],
    ],
    ids=str,
)
def test_draws_of_random_samplers_have_the_distribution_of_the_chain(run: gptkit.Run, chain: list[Any]) -> None:
    """Chi-square of two samples of first tokens (homogeneity), the rare tokens as one class; p > 0.001."""
    samplers, ids, n_draws = sampler_chain(chain), run.tokenizer.encode("the cat the dog the"), 1500
    with opened(run, max_batch=1) as engine:
        fields = {
            "prompt": ids,
            "n_predict": 1,
            "n_probs": 1,
            "stream": False,
            "cache_prompt": True,
            **parameters(samplers, 64),
        }
        drawn = []
        for seed in range(n_draws):
            answer = engine._open_server.handle_completions({**fields, "seed": seed})
            drawn.append(answer["choices"][0]["logprobs"]["content"][0]["id"])
    with torch.inference_mode():
        logits_BV = run.model(torch.tensor([ids])).logits[0, -1:].float().expand(n_draws, -1)
    streams = [f"{seed}/0" for seed in range(n_draws)]
    context = SamplerContext(run.tokenizer.vocab_size, n_draws, run.tokenizer)
    own = Chain(samplers, context, streams).pick(logits_BV, [ids] * n_draws).tolist()
    counts = torch.stack([torch.bincount(torch.tensor(each), minlength=run.tokenizer.vocab_size) for each in (drawn, own)])
    common = counts.sum(dim=0) >= 20
    table = torch.cat((counts[:, common], counts[:, ~common].sum(dim=1, keepdim=True)), dim=1).double()
    table = table[:, table.sum(dim=0) > 0]
    expected = table.sum(dim=0, keepdim=True) / 2
    statistic, freedom = float(((table - expected) ** 2 / expected).sum()), table.shape[1] - 1
    assert freedom >= 3
    assert statistic < freedom + 3.1 * (2 * freedom) ** 0.5 + 6.4, (statistic, freedom)  # the 0.999 quantile, from above


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
