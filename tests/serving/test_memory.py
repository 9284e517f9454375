"""Requests leave nothing behind: their objects are freed when they end, not by a later garbage collection."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gptkit.engines.native import NativeSpec
from gptkit.inference.request import Request, RequestState
from gptkit.serving.api_error import ApiError
from gptkit.serving.app import Api, application
from gptkit.serving.choices import Choice
from gptkit.serving.generation import Generation, Part
from gptkit.serving.http import Exchange
from gptkit.serving.limits import Limits
from gptkit.serving.loading import load_model
from gptkit.serving.metrics import Metrics
from tests.support.asgi import ask

KINDS = (Request, RequestState, ApiError, Choice, Generation, Part, Exchange, asyncio.Task)
GOOD = {"prompt": "a prompt of some tokens", "max_tokens": 6, "temperature": 1.0, "ignore_eos": True}
LONG = {**GOOD, "max_tokens": 400}

REQUESTS: dict[str, tuple[int | None, Any, dict[str, Any]]] = {
    "whole": (200, GOOD, {}),
    "stream": (200, {**GOOD, "stream": True, "logprobs": 2}, {}),
    "leaves a stream": (200, {**LONG, "stream": True}, {"leave_after": 3}),
    "leaves before the answer": (None, {**LONG, "n": 2}, {"leave_after": 0}),
    "malformed": (400, b"{", {}),
    "wrong field": (400, {"prompt": 5}, {}),
    "too many choices": (400, {**GOOD, "n": 10**9}, {}),
    "too long": (400, {**GOOD, "prompt": "x" * 600}, {}),
    "too large": (413, b" " * 300_000, {}),
    "too slow": (504, {**LONG, "seed": 504}, {}),
    "unknown path": (404, GOOD, {"path": "/v1/unknown"}),
    "unknown model": (404, {**GOOD, "model": "other"}, {}),
}


@asynccontextmanager
async def served(run: Path, **limits: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Yield an application that serves a run, and its engine."""
    metrics = Metrics()
    model = load_model(run, "model", NativeSpec(), metrics)
    try:
        app = application(Api({"model": model}, Limits(max_body=200_000, **limits), metrics))
        app.state.metrics = metrics
        yield app, model.engine
    finally:
        await model.engine.close()


def counted() -> Counter[type]:
    return Counter(kind for each in gc.get_objects() for kind in KINDS if type(each) is kind)


async def settled(engine: Any) -> None:
    """Wait until the engine's thread has done what was posted to it, and the event loop what was called from there."""
    while engine.n_running or engine.n_waiting:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_freed_when_they_end(name: str, runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    expected, body, options = REQUESTS[name]

    async def held() -> Counter[type]:
        async with served(runs[0], **({"timeout": 0.05} if name == "too slow" else {})) as (app, engine):
            for _ in range(3):  # what is kept once per process
                await ask(app, body, **options)
            await settled(engine)
            gc.collect()
            gc.disable()
            try:
                before = counted()
                for _ in range(5):
                    assert await ask(app, body, **options) == expected
                end = time.monotonic() + 60
                while True:
                    await settled(engine)
                    left = counted() - before
                    if not left or time.monotonic() > end:  # threads of a busy machine release their objects later
                        return left
            finally:
                gc.enable()

    assert asyncio.run(held()) == {}
    assert capsys.readouterr().err.count("\n") == 8  # the access log


def test_metrics_do_not_grow_with_names_of_clients(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    async def sizes() -> list[int]:
        result = []
        async with served(runs[0]) as (app, engine):
            for turn in range(2):
                for number in range(10):
                    assert await ask(app, {**GOOD, "seed": number}) == 200
                    assert await ask(app, GOOD, path=f"/unknown/{turn}/{number}") == 404
                    assert await ask(app, {**GOOD, "model": f"{turn}/{number}"}) == 404
                await settled(engine)
                result.append(len(app.state.metrics.text().splitlines()))
        return result

    first, second = asyncio.run(sizes())
    assert first == second
    capsys.readouterr()
