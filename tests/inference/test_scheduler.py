"""Continuous batching: a request's text does not depend on its arrival or on other requests."""

from __future__ import annotations

import math
import weakref
from typing import Any

import pytest
import torch

from gptkit.components.sampler.greedy import GreedySpec
from gptkit.components.sampler.temperature import TemperatureSpec
from gptkit.core.errors import GptkitError
from gptkit.inference import Request, RequestState, Scheduler, generate
from tests.support.fakes import Bytes, Recurrent

TOKENIZER = Bytes()
GREEDY = (GreedySpec(),)
WARM = (TemperatureSpec(value=1.0),)
PROMPTS = ["a", "some longer one", "mid", "x" * 16, "y" * 40, "one more", "the last"]


def request(prompt: str, **settings: Any) -> Request:
    return Request(TOKENIZER.encode(prompt), **{"sampler": GREEDY, "max_new_tokens": 30, **settings})


def drain(scheduler: Scheduler) -> None:
    for _ in range(1000):
        if scheduler.idle:
            return
        scheduler.step()
    raise AssertionError("the scheduler does not end")


@pytest.mark.parametrize("context_length", [2, 16, 64])
@pytest.mark.parametrize("max_batch", [1, 2, 7])
def test_texts_equal_those_of_single_generations(context_length: int, max_batch: int) -> None:
    model = Recurrent(context_length=context_length)
    scheduler = Scheduler(model, TOKENIZER, max_batch=max_batch)
    states = []
    for index, prompt in enumerate(PROMPTS):  # a new request every second step, of different lengths
        states.append(scheduler.submit(request(prompt, max_new_tokens=10 + 5 * index)))
        scheduler.step()
        scheduler.step()
    drain(scheduler)
    for index, (prompt, state) in enumerate(zip(PROMPTS, states, strict=True)):
        alone = generate(model, TOKENIZER, prompt, sampler=GREEDY, max_new_tokens=10 + 5 * index, stop_ids=())[0]
        assert state.history[len(alone.prompt_ids) :] == alone.ids, prompt
        assert state.finish == "length"


def test_draws_depend_on_seed_and_stream_only() -> None:
    model = Recurrent(context_length=32)
    together = generate(model, TOKENIZER, PROMPTS[:3], sampler=WARM, max_new_tokens=20, seed=9, stop_ids=())
    scheduler = Scheduler(model, TOKENIZER, max_batch=2)
    other = scheduler.submit(request("other", sampler=GREEDY))
    states = [
        scheduler.submit(request(prompt, sampler=WARM, max_new_tokens=20, seed=9, stream=index))
        for index, prompt in enumerate(PROMPTS[:3])
    ]
    drain(scheduler)
    assert [state.text.text for state in states] == [result.text for result in together]
    assert other.n_generated == 30


def test_waiting_requests_are_admitted_in_order_when_others_leave() -> None:
    scheduler = Scheduler(Recurrent(context_length=64), TOKENIZER, max_batch=2)
    states = [scheduler.submit(request("p", max_new_tokens=n)) for n in (2, 6, 3, 3)]
    running: list[list[RequestState]] = []
    while not scheduler.idle:
        scheduler.step()
        running.append(scheduler.running)
        assert len(scheduler.running) <= 2
    assert running[0] == states[:2]
    assert scheduler.waiting == []
    assert states[2] in running[2]
    assert [state.n_generated for state in states] == [2, 6, 3, 3]


def test_every_token_is_read_once_while_the_cache_has_room() -> None:
    model = Recurrent(context_length=64)
    scheduler = Scheduler(model, TOKENIZER)
    scheduler.submit(request("four", max_new_tokens=5))
    scheduler.step()
    scheduler.submit(request("newcomer", max_new_tokens=5))
    drain(scheduler)
    prompts = [call for call in model.calls if call[1] > 1]
    assert prompts == [(1, 4), (1, 8)]
    assert len(model.caches) == 2


def test_prefill_in_chunks_gives_the_same_text() -> None:
    model = Recurrent(context_length=64)
    expected = generate(model, TOKENIZER, "a rather long prompt", sampler=GREEDY, max_new_tokens=9, stop_ids=())[0]
    model.calls.clear()
    scheduler = Scheduler(model, TOKENIZER, prefill_chunk=8)
    state = scheduler.submit(request("a rather long prompt", max_new_tokens=9))
    drain(scheduler)
    assert state.text.text == expected.text
    assert model.calls[:3] == [(1, 8), (1, 8), (1, 4)]


def test_long_prompt_is_processed_in_parts_while_others_are_decoded() -> None:
    model = Recurrent(context_length=128)
    alone = [generate(model, TOKENIZER, prompt, sampler=GREEDY, max_new_tokens=30, stop_ids=())[0] for prompt in PROMPTS]
    scheduler = Scheduler(model, TOKENIZER, prefill_chunk_busy=8)
    first = scheduler.submit(request("a"))
    scheduler.step()
    model.calls.clear()
    long = scheduler.submit(request("y" * 40))
    for n_steps in range(1, 6):
        scheduler.step()
        assert first.n_generated == 1 + n_steps
        assert scheduler.prefilling == ([long] if n_steps < 5 else [])
    assert model.calls == [(1, 1), (1, 8)] * 5
    assert long.n_generated == 1
    drain(scheduler)
    assert first.history[1:] == alone[0].ids
    assert long.history[40:] == alone[4].ids


def test_arrivals_take_turns_and_share_the_tokens_of_a_step() -> None:
    model = Recurrent(context_length=256)
    scheduler = Scheduler(model, TOKENIZER, prefill_chunk_busy=8)
    running = scheduler.submit(request("a"))
    scheduler.step()
    long = scheduler.submit(request("y" * 100))
    scheduler.step()
    short = [scheduler.submit(request(prompt)) for prompt in ("one more", "mid")]
    for _ in range(4):  # the long prompt, then two rows of four columns, and both again
        scheduler.step()
    assert [state.n_generated for state in (running, long, *short)] == [6, 0, 1, 1]
    assert scheduler.prefilling == [long]
    drain(scheduler)
    for state in (running, long, *short):
        prompt = state.request.prompt_ids
        (expected,) = generate(model, TOKENIZER, [list(prompt)], sampler=GREEDY, max_new_tokens=30, stop_ids=())
        assert state.history[len(prompt) :] == expected.ids


@pytest.mark.parametrize("n_steps", [1, 2])
def test_cancelled_prefill_frees_its_cache(n_steps: int) -> None:
    model = Recurrent(context_length=128)
    scheduler = Scheduler(model, TOKENIZER, max_batch=3, prefill_chunk_busy=8)
    running = scheduler.submit(request("a", max_new_tokens=40))
    scheduler.step()
    cancelled, kept = scheduler.submit(request("y" * 40)), scheduler.submit(request("z" * 33))
    for _ in range(n_steps):
        scheduler.step()
    scheduler.cancel(cancelled)
    late = scheduler.submit(request("mid"))
    scheduler.step()
    assert cancelled not in scheduler.prefilling
    assert late in (*scheduler.prefilling, *scheduler.running)  # its place is free
    drain(scheduler)
    for state in (running, kept, late):
        prompt = list(state.request.prompt_ids)
        (alone,) = generate(model, TOKENIZER, [prompt], sampler=GREEDY, max_new_tokens=40, stop_ids=())
        assert state.history[len(prompt) :] == alone.ids[: state.n_generated]
        assert state.finish == "length"


def test_cancelling_the_only_prefill_frees_everything() -> None:
    scheduler = Scheduler(Recurrent(context_length=128), TOKENIZER, prefill_chunk=4, prefill_chunk_busy=4)
    state = scheduler.submit(request("y" * 40))
    scheduler.step()
    cache = weakref.ref(scheduler._arrivals[0].batch._cache)
    scheduler._model.caches.clear()  # the fake model keeps them
    assert not scheduler.idle
    scheduler.cancel(state)
    assert scheduler.idle
    scheduler.step()
    assert cache() is None
    assert scheduler.prefilling == scheduler.running == []


def test_cancelled_requests_end_and_are_removed() -> None:
    scheduler = Scheduler(Recurrent(context_length=64), TOKENIZER, max_batch=1)
    first, second, third = (scheduler.submit(request("p")) for _ in range(3))
    scheduler.step()
    scheduler.cancel(second)
    scheduler.cancel(first)
    assert (first.finish, second.finish) == ("interrupted", "interrupted")
    assert scheduler.cancel(first) == ""
    drain(scheduler)
    assert second.n_generated == 0
    assert first.n_generated == 1
    assert third.n_generated == 30


def test_invalid_requests_are_rejected_when_they_are_created() -> None:
    scheduler = Scheduler(Recurrent(context_length=4), TOKENIZER)
    with pytest.raises(GptkitError, match="5 tokens, the model's context 4"):
        scheduler.submit(request("12345", overflow="stop"))
    with pytest.raises(GptkitError, match="no token"):
        request("")
    with pytest.raises(GptkitError, match="stop string is empty"):
        request("a", stop=("",))
    for settings in ({"max_batch": 0}, {"prefill_chunk": 0}, {"prefill_chunk_busy": 0}):
        with pytest.raises(GptkitError, match="0"):
            Scheduler(Recurrent(), TOKENIZER, **settings)


class Poisoned(Recurrent):
    """Model whose logits are NaN in rows whose last token is `z`."""

    def forward(self, ids_BT: torch.Tensor, **options: Any) -> Any:
        output = super().forward(ids_BT, **options)
        output.logits = output.logits.masked_fill((ids_BT[:, -1:] == ord("z"))[:, :, None], torch.nan)
        return output


@pytest.mark.parametrize("sampler", [GREEDY, WARM])
def test_request_that_cannot_be_sampled_ends_and_the_others_continue(sampler: Any) -> None:
    model = Poisoned(context_length=64)
    prompts = ["first", "poison: z", "third"]
    scheduler = Scheduler(model, TOKENIZER)
    states = [scheduler.submit(request(prompt, sampler=sampler, max_new_tokens=8)) for prompt in prompts]
    drain(scheduler)
    assert [state.finish for state in states] == ["length", "error", "length"]
    assert "cannot be sampled" in str(states[1].error)
    for prompt, state in zip(prompts, states, strict=True):
        if state.error is None:
            (alone,) = generate(Recurrent(context_length=64), TOKENIZER, prompt, sampler=sampler, seed=0, max_new_tokens=8)
            assert state.text.text == alone.text
    with pytest.raises(GptkitError, match="cannot be sampled"):
        generate(model, TOKENIZER, prompts, sampler=sampler)


def test_log_probabilities_are_recorded_for_requests_that_ask_for_them() -> None:
    model = Recurrent(context_length=64)
    scheduler = Scheduler(model, TOKENIZER)
    counts = (None, 0, 3, 10_000)
    states = [scheduler.submit(request("abc", max_new_tokens=5, log_probabilities=count)) for count in counts]
    drain(scheduler)
    without, own, top, every = states
    assert without.log_probabilities == []
    assert [len(best) for best in own.top_log_probabilities] == [0] * 5
    assert own.log_probabilities == pytest.approx(top.log_probabilities)
    for token, score, best in zip(top.history[3:], top.log_probabilities, top.top_log_probabilities, strict=True):
        assert best[0] == (token, pytest.approx(score))  # the most likely token is chosen
        assert [value for _, value in best] == sorted((value for _, value in best), reverse=True)
    assert [len(best) for best in every.top_log_probabilities] == [TOKENIZER.vocab_size] * 5
    for best in every.top_log_probabilities:
        assert sum(math.exp(value) for _, value in best) == pytest.approx(1, abs=1e-4)
