"""Engines: requests that share the steps of an engine.

Shapes: T tokens.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.chips import Features
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.strips import Run, Strips
from gptkit.docs.figures.subjects import first
from gptkit.engines.engine import Engine
from gptkit.inference.request import Request, RequestState
from gptkit.kinds.engine import EngineContext, EngineSpec
from gptkit.kinds.tokenizer import TokenizerSpec
from gptkit.model.gpt import GPT
from gptkit.runs.directory import RunDirectory
from gptkit.runs.exporting import native_model
from gptkit.runs.saving import save_run

__all__ = ["draw"]

MAX_BATCH = 3
_LAYOUT: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 1,
    "context_length": 96,
    "position": "rotary",
    "attention": {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 1},
    "norm": "rms",
    "feedforward": {"name": "gated", "d_hidden": 64},
}
_REQUESTS = ((0, 24, 9), (0, 6, 14), (0, 12, 5), (2, 8, 7), (4, 30, 6), (7, 5, 4))
"""The step before which each request arrives, the tokens of its prompt, and those to generate."""
_LIMIT = 200


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the requests over the steps of the engine, and what the engine declares."""
    spec = cast("EngineSpec", first(cls, registry).spec)
    byte = registry.component("tokenizer", "byte").model_validate({"name": "byte"}, context={"registry": registry})
    tokenizer = cast("TokenizerSpec", byte).fit(iter(()))
    model = GPT(_LAYOUT, tokenizer.vocab_size, seed=0).eval()
    with tempfile.TemporaryDirectory(prefix="gptkit-docs-") as scratch:
        run = save_run(Path(scratch, "run"), model, tokenizer, registry=registry)
        context = EngineContext(
            run,
            tokenizer,
            lambda: model,
            max_batch=MAX_BATCH,
            native_model=lambda: native_model(RunDirectory(run), registry=registry),
        )
        engine = spec.build(context)
        try:
            rows, n_steps = _recorded(engine)
        finally:
            engine.close()
    fields = type(spec).model_fields
    features = Features(
        "what it supports",
        [
            ("--precision", spec.applies_precision),
            ("--trace", spec.traces),
            ("--speculate", "drafter" in fields),
            ("--compile", "compile" in fields),
        ],
    )
    described = (
        f"{len(rows)} requests in {n_steps} steps, at most {MAX_BATCH} at once; a free place is taken in the next step."
    )
    legend = {0: "waits", 2: "prompt, first token", 1: "a token"}
    strips = Strips("requests over steps", "step of the engine", rows, described, legend)
    prompts = [tokens for _, tokens, _ in _REQUESTS]
    caption = (
        f"{len(rows)} requests with prompts of {min(prompts)} to {max(prompts)} tokens "
        f"arrive while others run; the engine computes up to {MAX_BATCH} of them in a step."
    )
    return Figure([strips, features], caption)


def _recorded(engine: Engine) -> tuple[list[tuple[str, list[Run]]], int]:
    """Drive an engine until it is idle, and return a row for each request."""
    states: dict[RequestState, int] = {}
    runs: list[list[Run]] = [[] for _ in _REQUESTS]
    begun = [False] * len(_REQUESTS)
    step = 0
    while step < _LIMIT and (len(states) < len(_REQUESTS) or not engine.idle):
        for index, (arrival, prompt, tokens) in enumerate(_REQUESTS):
            if arrival == step:
                ids = [97 + (3 * index + place) % 26 for place in range(prompt)]
                states[engine.submit(Request(ids, max_new_tokens=tokens, seed=index, overflow="stop"))] = index
        given = {states[each.state]: len(each.ids) for each in engine.step()}
        running = [index for state, index in states.items() if not state.finish or index in given]
        for index in running:
            if given.get(index):
                runs[index].append(Run(step, step + 1, 1 if begun[index] else 2))
                begun[index] = True
            else:
                runs[index].append(Run(step, step + 1, 0))
        step += 1
    return [(f"request {index + 1}", own) for index, own in enumerate(runs)], step
