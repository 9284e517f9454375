"""Random models generate the same tokens in every way: with caches, in batches, with drafters, in turns and in searches."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import torch

from gptkit.core.errors import GptkitError
from gptkit.inference import Request, Scheduler, Session, generate
from gptkit.inference.samplers import sampler_chain
from gptkit.model.gpt import GPT
from tests.support.fakes import Bytes
from tests.support.random_models import named, random_models, varied

V = 256
CONTEXT = 24
N_NEW = 12
LENGTHS = (3, 30, 20, 1, 22)
"""Of prompts; longer ones than the context are truncated on the left."""
TOKENIZER = Bytes()
SHARE = 20
"""The slow tests take each twentieth model."""
SAMPLED: list[Any] = [{"name": "temperature", "value": 0.7}, {"name": "top-k", "k": 9}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "step"), [(0, SHARE), *(pytest.param(seed, 1, marks=pytest.mark.nightly) for seed in range(4))]
)
@torch.no_grad()
def test_random_models_generate_the_same_tokens_in_every_way(seed: int, step: int) -> None:
    for name, spec in list(random_models(seed, CONTEXT))[::step]:
        with named(name, spec):
            model = varied(GPT(spec, V, seed=1).double(), seed)
            if model(torch.arange(CONTEXT)[None]).logits.isfinite().all():
                check(model, seed)


def check(model: GPT, seed: int) -> None:
    chance = Random(f"prompts {seed}")
    prompts = [[chance.randrange(V) for _ in range(length)] for length in LENGTHS]
    prompts.append(prompts[2][:17] + prompts[0])  # shares a prefix
    expected = [defined(model, prompt) for prompt in prompts]
    for what, actual in greedy(model, prompts):
        assert actual == expected, what
    first = [generated(model, [prompt], SAMPLED)[0].ids for prompt in prompts]
    assert scheduled(Scheduler(model, TOKENIZER, max_batch=3, prefix_bytes=2**24), prompts, SAMPLED) == first


def defined(model: GPT, prompt: list[int]) -> list[int]:
    """Return the most likely tokens by the definition: a full context is reduced to its second half."""
    window, result = prompt[-CONTEXT:], []
    for _ in range(N_NEW):
        logits_BTV = model(torch.tensor([window])).logits
        assert logits_BTV is not None
        result.append(int(logits_BTV[0, -1].argmax()))
        window = [*window, result[-1]]
        if len(window) > CONTEXT:
            window = window[-(CONTEXT // 2) :]
    return result


def generated(model: GPT, prompts: list[list[int]], sampler: list[Any], **options: Any) -> list[Any]:
    return generate(model, TOKENIZER, prompts, sampler=sampler, max_new_tokens=N_NEW, stop_ids=(), seed=5, **options)


def greedy(model: GPT, prompts: list[list[int]]) -> Iterator[tuple[str, list[list[int]]]]:
    """Yield ways of greedy generation, with the tokens of each prompt."""
    yield "one by one", [generated(model, [prompt], ["greedy"])[0].ids for prompt in prompts]
    yield "in a batch", [result.ids for result in generated(model, prompts, ["greedy"])]
    yield "scheduled", scheduled(Scheduler(model, TOKENIZER, max_batch=3, prefix_bytes=2**24), prompts, ["greedy"])
    yield "in chunks", scheduled(Scheduler(model, TOKENIZER, prefill_chunk=5, prefill_chunk_busy=2), prompts, ["greedy"])
    session = Session(model, TOKENIZER)
    yield "in turns", [turn(session, prompt) for prompt in prompts]
    yield "in continued turns", [turn(session, prompt) for prompt in prompts[::-1]][::-1]
    yield "beam of one", [result.ids for result in generated(model, prompts, [], decoding={"name": "beam", "width": 1})]
    contrastive = {"name": "contrastive", "alpha": 0.0, "k": 3}
    yield "contrastive", [result.ids for result in generated(model, prompts, [], decoding=contrastive)]
    for drafter in ({"name": "ngram", "min_n": 1}, *([{"name": "mtp", "min_probability": 0}] if has_modules(model) else [])):
        try:
            yield f"{drafter}", [result.ids for result in generated(model, prompts, ["greedy"], drafter=drafter)]
        except GptkitError as error:
            assert error.hint, error.message
            continue
        yield f"{drafter} alone", [generated(model, [prompt], ["greedy"], drafter=drafter)[0].ids for prompt in prompts]
        session = Session(model, TOKENIZER, drafter=drafter)
        yield f"{drafter} in turns", [turn(session, prompt) for prompt in prompts]


def has_modules(model: GPT) -> bool:
    return model.spec.head.component_name() == "multi-token"


def turn(session: Session, prompt: list[int]) -> list[int]:
    reply = session.stream(prompt, sampler=["greedy"], max_new_tokens=N_NEW)
    for _ in reply:
        pass
    return list(reply.ids)


def scheduled(scheduler: Scheduler, prompts: list[list[int]], sampler: list[Any]) -> list[list[int]]:
    """Return the tokens of requests that arrive one after another, each with the random numbers of a single prompt."""
    states = []
    for prompt in prompts:
        request = Request(prompt, sampler=sampler_chain(sampler), max_new_tokens=N_NEW, seed=5)
        states.append(scheduler.submit(request))
        scheduler.step()
        scheduler.step()
    while not scheduler.idle:
        scheduler.step()
    for state in states:
        assert state.error is None
    return [state.history[len(prompt) :] for state, prompt in zip(states, prompts, strict=True)]
