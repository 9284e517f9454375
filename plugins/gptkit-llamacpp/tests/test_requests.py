"""Requests: stop conditions, more of them than slots, cancellation, seeds, and the limit of the context."""

from __future__ import annotations

from typing import Any

import pytest
from llamacpp_runs import collect, finished, opened, request, until

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.engines.engine import Progress
from gptkit.inference import Request
from gptkit.inference.samplers import sampler_chain


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


def test_invalid_requests_are_refused(run: gptkit.Run) -> None:
    with opened(run) as engine:
        with pytest.raises(GptkitError, match="token 9999"):
            engine.submit(Request([9999]))
        with pytest.raises(GptkitError, match="what each sampler left"):
            engine.check(request(run, trace=3))
