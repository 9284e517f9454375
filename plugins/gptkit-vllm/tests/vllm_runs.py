"""Runs with random weights, and the engine on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gptkit_vllm.engine import Vllm
from gptkit_vllm.spec import VllmEngineSpec

import gptkit
from gptkit.engines.engine import Engine, Progress
from gptkit.engines.native import NativeSpec
from gptkit.inference import Request
from gptkit.inference.samplers import sampler_chain
from gptkit.runs.engines import engine_context

GREEDY = sampler_chain(["greedy"])

GROUPED = {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "d_head": 32}

LLAMA: dict[str, Any] = {
    "context_length": 64,
    "d_model": 64,
    "n_layers": 2,
    "position": {"name": "rotary", "base": 5000},
    "attention": GROUPED,
    "norm": {"name": "rms", "eps": 1e-5},
    "feedforward": {"name": "gated", "d_hidden": 96},
    "head": {"name": "linear", "tied": False},
}
"""A model of the family `llama`."""
PARALLEL = {**LLAMA, "block": "parallel", "position": "learned"}
"""A composition that no family expresses, whose code meets the contract of vLLM's Transformers backend."""
ALIBI = {**LLAMA, "position": "alibi"}
"""A composition that no family expresses, with terms in its scores."""


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


@contextmanager
def opened(run: gptkit.Run, *, max_batch: int = 2, **options: Any) -> Iterator[Vllm]:
    fields = {"dtype": "float32", "eager": True, "cache_gib": 0.25, "directory": str(run.directory.parent / "cache")}
    engine = VllmEngineSpec(**{**fields, **options}).build(engine_context(run, max_batch))
    try:
        yield engine
    finally:
        engine.close()


def native(run: gptkit.Run, max_batch: int = 2) -> Engine:
    return NativeSpec().build(engine_context(run, max_batch))


def request(run: gptkit.Run, prompt: str = "The quick", **settings: Any) -> Request:
    return Request(run.tokenizer.encode(prompt), **{"sampler": GREEDY, "max_new_tokens": 12, **settings})


def finished(engine: Engine, *requests: Request) -> list[Any]:
    """Run requests to their end, and check that what is reported in steps equals their states."""
    states = [engine.submit(each) for each in requests]
    seen: dict[Any, list[Progress]] = {state: [] for state in states}
    drain(engine, seen)
    for state, parts in seen.items():
        assert [token for part in parts for token in part.ids] == state.history[len(state.request.prompt_ids) :]
        assert "".join(part.text for part in parts) == state.text.text
        assert [part.finish for part in parts] == [None] * (len(parts) - 1) + [state.finish]
    return states


def drain(engine: Engine, seen: dict[Any, list[Progress]]) -> None:
    """Step until the engine is idle; collect the progress by request."""
    for _ in range(1000):
        if engine.idle:
            return
        for each in engine.step():
            seen[each.state].append(each)
    raise AssertionError("the engine did not become idle")


def assert_same_as_native(engine: Engine, run: gptkit.Run) -> None:
    """Compare greedy tokens, log-probabilities and scores with those of the native engine."""
    other = native(run)
    requests = [request(run, prompt, log_probabilities=2, max_new_tokens=24) for prompt in ("The quick", "é!")]
    expected, states = finished(other, *requests), finished(engine, *requests)
    assert [state.history for state in states] == [state.history for state in expected]
    for state, wanted in zip(states, expected, strict=True):
        assert max(map(abs, map(float.__sub__, state.log_probabilities, wanted.log_probabilities))) < 1e-3
        assert [[token for token, _ in top] for top in state.top_log_probabilities] == [
            [token for token, _ in top] for top in wanted.top_log_probabilities
        ]
    ids = run.tokenizer.encode("brown fox")
    scores, others = engine.score(ids, 1), other.score(ids, 1)
    assert len(scores) == len(ids) - 1
    for score, wanted_score in zip(scores, others, strict=True):
        assert abs(score.log_probability - wanted_score.log_probability) < 1e-3
        assert score.top[0][0] == wanted_score.top[0][0]
    full = (ids * 64)[: engine.context_length]
    assert len(engine.score(full)) == len(full) - 1
