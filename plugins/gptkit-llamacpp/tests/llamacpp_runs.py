"""Runs with random weights, and the engine on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gptkit_llamacpp.engine import LlamaCpp
from gptkit_llamacpp.spec import LlamaCppEngineSpec

import gptkit
from gptkit.engines.engine import Engine, Progress
from gptkit.inference import Request
from gptkit.inference.samplers import sampler_chain
from gptkit.kinds.engine import EngineContext
from gptkit.runs.engines import engine_context

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
