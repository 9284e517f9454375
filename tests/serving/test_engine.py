"""`AsyncEngine`: events of concurrent generations, cancellation, bounds, and errors of the engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from gptkit.components.sampler.greedy import GreedySpec
from gptkit.components.sampler.logit_bias import LogitBiasSpec
from gptkit.components.sampler.temperature import TemperatureSpec
from gptkit.core.errors import GptkitError
from gptkit.engines.engine import Progress
from gptkit.engines.scheduled import Scheduled
from gptkit.inference import Request, generate
from gptkit.serving.engine import AsyncEngine
from gptkit.serving.errors import BusyError, EngineError, SlowClientError, UnavailableError
from gptkit.serving.generation import Generation
from tests.support.fakes import Bytes, Recurrent

TOKENIZER = Bytes()
GREEDY = (GreedySpec(),)
WARM = (TemperatureSpec(value=1.0),)


def request(prompt: str = "once", **settings: Any) -> Request:
    return Request(TOKENIZER.encode(prompt), **{"sampler": GREEDY, "max_new_tokens": 12, **settings})


class Slow(Recurrent):
    """Model that takes a millisecond per forward pass, without the interpreter, as those of a useful size do."""

    def forward(self, ids_BT: torch.Tensor, **options: Any) -> Any:
        time.sleep(0.001)
        return super().forward(ids_BT, **options)


def scheduled(context_length: int = 4096, **options: Any) -> Scheduled:
    return Scheduled(Slow(context_length=context_length), TOKENIZER, **{"max_batch": 4, **options})


def run(test: Callable[[AsyncEngine], Any], engine: Scheduled | None = None, **options: Any) -> Any:
    """Run a test with an engine, and check that the engine has nothing left to do afterwards."""

    async def whole() -> Any:
        engine_ = AsyncEngine(engine or scheduled(), **options)
        try:
            result = await asyncio.wait_for(test(engine_), 60)
            await until(lambda: engine_.n_running == engine_.n_waiting == 0)
            return result
        finally:
            await asyncio.wait_for(engine_.close(), 120)

    before = threading.active_count()
    result = asyncio.run(whole())
    end = time.monotonic() + 120  # a thread ends a moment later on a busy machine
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before
    return result


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition did not become true")


async def texts(generation: Generation) -> list[str]:
    result = [""] * len(generation.requests)
    async with generation as events:
        async for event in events:
            result[event.index] += event.text
    return result


def test_concurrent_texts_equal_those_of_generate() -> None:
    prompts = [f"prompt {'x' * index}" for index in range(12)]

    async def test(engine: AsyncEngine) -> list[list[str]]:
        requests = [
            [request(prompt, sampler=WARM, seed=5, stream=stream, max_new_tokens=10 + index) for stream in range(2)]
            for index, prompt in enumerate(prompts)
        ]
        return await asyncio.gather(*(texts(engine.generate(*each)) for each in requests))

    results = run(test)
    model = Recurrent(context_length=4096)
    for index, (prompt, result) in enumerate(zip(prompts, results, strict=True)):
        options: dict[str, Any] = {"sampler": WARM, "max_new_tokens": 10 + index, "seed": 5, "stop_ids": ()}
        assert result == [each.text for each in generate(model, TOKENIZER, [prompt, prompt], **options)]


def test_events_hold_tokens_scores_and_the_finish_reason() -> None:
    async def test(engine: AsyncEngine) -> list[Any]:
        async with engine.generate(request(max_new_tokens=5, log_probabilities=2)) as events:
            return [event async for event in events]

    events = run(test)
    (expected,) = generate(Recurrent(context_length=4096), TOKENIZER, "once", sampler=GREEDY, max_new_tokens=5, stop_ids=())
    assert [token for event in events for token in event.ids] == expected.ids
    assert "".join(event.text for event in events) == expected.text
    assert [event.finish for event in events] == [None] * 4 + ["length"]
    assert all(event.scores[0].top[0] == (event.ids[0], event.scores[0].log_probability) for event in events)


def test_request_without_tokens_ends_at_once() -> None:
    async def test(engine: AsyncEngine) -> list[Any]:
        async with engine.generate(request(max_new_tokens=0)) as events:
            return [event async for event in events]

    (event,) = run(test)
    assert (event.ids, event.text, event.finish) == ((), "", "length")


def test_leaving_the_context_frees_the_row() -> None:
    async def test(engine: AsyncEngine) -> None:
        for _ in range(3):
            async with engine.generate(request(max_new_tokens=4000), request(max_new_tokens=4000)) as events:
                async for event in events:
                    if event.index == 1:
                        break
            await until(lambda: engine.n_running == 0)
        async with engine.generate(*[request(max_new_tokens=4000)] * 4):
            await until(lambda: engine.n_running == 4)
            waiting = asyncio.create_task(texts(engine.generate(request())))
            await until(lambda: engine.n_waiting == 1)  # from where on the request holds a place
            waiting.cancel()
            await until(lambda: engine.n_waiting == 0)
            assert engine.n_running == 4

    run(test)


def test_full_queue_refuses_with_a_time_to_wait() -> None:
    async def test(engine: AsyncEngine) -> None:
        generations = [await engine.generate(request(max_new_tokens=4000)).__aenter__() for _ in range(6)]
        with pytest.raises(BusyError, match="6 requests run or wait") as error:
            await texts(engine.generate(request()))
        assert 1 <= error.value.retry_after <= 60
        for generation in generations:
            generation.close()
        await until(lambda: engine.n_running == engine.n_waiting == 0)
        assert await texts(engine.generate(request()))

    run(test, scheduled(max_batch=4), max_queue=2)


def test_reader_that_does_not_read_is_cancelled() -> None:
    async def test(engine: AsyncEngine) -> None:
        async with engine.generate(request(max_new_tokens=4000)) as events:
            await anext(events)
            await until(lambda: engine.n_running == 0)
            with pytest.raises(SlowClientError, match="were not read"):
                async for _ in events:
                    pass

    run(test, max_buffered=50)


class Faulty(Scheduled):
    """Engine whose n-th step raises."""

    def __init__(self, *, step: int, reset: bool = True) -> None:
        super().__init__(Recurrent(context_length=4096), TOKENIZER, max_batch=4)
        self.countdown, self.can_reset = step, reset

    def step(self) -> list[Progress]:
        self.countdown -= 1
        if self.countdown == 0:
            raise ZeroDivisionError("a bug in a sampler")
        return super().step()

    def reset(self) -> None:
        if not self.can_reset:
            raise MemoryError
        super().reset()


def test_exception_of_the_engine_ends_its_requests_only(caplog: pytest.LogCaptureFixture) -> None:
    async def test(engine: AsyncEngine) -> list[str]:
        requests = [texts(engine.generate(request(), request())) for _ in range(2)]
        failures = await asyncio.gather(*requests, return_exceptions=True)
        assert [type(failure) for failure in failures] == [EngineError, EngineError]
        return await texts(engine.generate(request()))

    (text,) = run(test, Faulty(step=3))
    assert len(text) > 3
    assert "a bug in a sampler" in caplog.text


def test_engine_that_cannot_be_reset_refuses_requests() -> None:
    async def test(engine: AsyncEngine) -> None:
        with pytest.raises(EngineError):
            await texts(engine.generate(request()))
        await until(lambda: engine.problem is not None)
        assert "restart the server" in str(engine.problem)
        with pytest.raises(UnavailableError):
            await texts(engine.generate(request()))
        with pytest.raises(UnavailableError):
            await engine.score([1, 2, 3])

    run(test, Faulty(step=3, reset=False))


def test_error_of_one_request_ends_its_generation_only() -> None:
    class Poisoned(Recurrent):
        def forward(self, ids_BT: torch.Tensor, **options: Any) -> Any:
            output = super().forward(ids_BT, **options)
            output.logits = output.logits.masked_fill((ids_BT[:, -1:] == ord("z"))[:, :, None], torch.nan)
            return output

    async def test(engine: AsyncEngine) -> list[Any]:
        together = [texts(engine.generate(request(prompt))) for prompt in ("one", "z", "three")]
        return await asyncio.gather(*together, return_exceptions=True)

    one, failure, three = run(test, Scheduled(Poisoned(context_length=4096), TOKENIZER, max_batch=4))
    assert isinstance(failure, GptkitError)
    assert "cannot be sampled" in failure.message
    assert one[0]
    assert three[0]


def test_check_builds_the_samplers() -> None:
    async def test(engine: AsyncEngine) -> None:
        await engine.check(request())
        with pytest.raises(GptkitError, match="logit-bias"):
            await engine.check(request(sampler=(LogitBiasSpec(bias={9999: 1.0}),)))
        with pytest.raises(GptkitError, match="token 300"):
            await engine.check(Request([300]))

    run(test)


def test_scores_equal_those_of_the_model() -> None:
    ids = TOKENIZER.encode("a text of a few words, longer than one chunk " * 12)

    async def test(engine: AsyncEngine) -> Any:
        return await engine.score(ids, 3)

    scores = run(test)
    model = Recurrent(context_length=4096)
    with torch.no_grad():
        log_p_TV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert len(scores) == len(ids) - 1
    for index, score in enumerate(scores):
        assert score.log_probability == pytest.approx(log_p_TV[index, ids[index + 1]].item(), abs=1e-4)
        best = log_p_TV[index].topk(3)
        assert [token for token, _ in score.top] == best.indices.tolist()
        assert [value for _, value in score.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_closing_ends_running_requests() -> None:
    async def test() -> None:
        engine = AsyncEngine(scheduled())
        generation = await engine.generate(request(max_new_tokens=4000)).__aenter__()
        assert (await anext(generation)).ids
        await engine.close()
        with pytest.raises(UnavailableError, match="shutting down"):
            async for _ in generation:
                pass
        with pytest.raises(UnavailableError):
            await texts(engine.generate(request()))

    asyncio.run(asyncio.wait_for(test(), 30))


def test_closed_event_loop_frees_the_rows() -> None:
    engine = AsyncEngine(scheduled())

    async def begin() -> None:
        generation = await engine.generate(request(max_new_tokens=4000)).__aenter__()
        await anext(generation)

    asyncio.run(begin())

    async def end() -> None:
        await until(lambda: engine.n_running == engine.n_waiting == 0)
        assert await texts(engine.generate(request()))
        await engine.close()

    asyncio.run(asyncio.wait_for(end(), 30))


def test_events_reach_their_own_loop() -> None:
    """Programs with several event loops (a page and a server) may share one engine."""
    engine = AsyncEngine(scheduled(max_batch=8))
    results: list[Sequence[str]] = []

    async def one() -> list[str]:
        return await texts(engine.generate(request(max_new_tokens=200)))

    threads = [threading.Thread(target=lambda: results.append(asyncio.run(one()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(results) == 3
    assert results[0] == results[1] == results[2]
    asyncio.run(engine.close())
