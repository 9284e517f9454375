"""Generation with real models and a real tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gptkit.components.sampler.repetition_penalty import RepetitionPenaltySpec
from gptkit.components.sampler.temperature import TemperatureSpec
from gptkit.components.sampler.top_k import TopKSpec
from gptkit.components.sampler.top_p import TopPSpec
from gptkit.inference import Request, Scheduler, beam_search, generate, generate_simple, score, stream
from tests.support.decoded_models import GREEDY, MODELS, SCHEDULED, TOKENIZER, decoded_model

CHAIN = (RepetitionPenaltySpec(penalty=1.2), TemperatureSpec(value=0.8), TopKSpec(k=50), TopPSpec(p=0.95))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", MODELS)
def test_cached_greedy_text_equals_the_simple_loop(name: str) -> None:
    gpt = decoded_model(name, 64)
    ids = TOKENIZER.encode("Once upon a time")
    result = generate(gpt, TOKENIZER, [ids], sampler=GREEDY, max_new_tokens=48, stop_ids=())[0]
    assert [*ids, *result.ids] == generate_simple(gpt, torch.tensor([ids]), 48)[0].tolist()
    assert len(set(result.ids)) > 5


@pytest.mark.parametrize("name", MODELS)
def test_uneven_batches_equal_single_rows_beyond_the_context(name: str) -> None:
    gpt = decoded_model(name, 24)
    prompts = ["a", "some longer one", "été", "x y" * 20]
    together = generate(gpt, TOKENIZER, prompts, sampler=GREEDY, max_new_tokens=40, stop_ids=())
    for prompt, result in zip(prompts, together, strict=True):
        assert result.ids == generate(gpt, TOKENIZER, prompt, sampler=GREEDY, max_new_tokens=40, stop_ids=())[0].ids


@pytest.mark.parametrize("name", SCHEDULED)
@pytest.mark.parametrize(("context_length", "busy"), [(24, None), (96, None), (24, 4), (96, 4)])
def test_requests_that_join_later_get_the_text_they_get_alone(name: str, context_length: int, busy: int | None) -> None:
    gpt = decoded_model(name, context_length)
    prompts = ["a", "some longer one", "été", "x y" * 20, "the fifth"]
    scheduler = Scheduler(gpt, TOKENIZER, max_batch=3, prefill_chunk=7, prefill_chunk_busy=busy)
    states = []
    for index, prompt in enumerate(prompts):
        ids = TOKENIZER.encode(prompt)
        states.append(scheduler.submit(Request(ids, sampler=GREEDY, max_new_tokens=12 + 6 * index)))
        for _ in range(3):
            scheduler.step()
    while not scheduler.idle:
        scheduler.step()
    for index, (prompt, state) in enumerate(zip(prompts, states, strict=True)):
        alone = generate(gpt, TOKENIZER, prompt, sampler=GREEDY, max_new_tokens=12 + 6 * index, stop_ids=())[0]
        assert state.history[len(alone.prompt_ids) :] == alone.ids, prompt


@pytest.mark.parametrize("name", MODELS)
def test_drawn_text_does_not_depend_on_the_other_rows(name: str) -> None:
    gpt = decoded_model(name, 24)
    prompts = ["a", "some longer one", "été", "x y" * 20]
    settings: dict[str, Any] = {"sampler": CHAIN, "max_new_tokens": 40, "seed": 11, "stop_ids": range(100, 112)}
    together = generate(gpt, TOKENIZER, prompts, **settings)
    assert len({len(result.ids) for result in together}) > 1  # some rows left the batch early
    for location in range(4):
        alone = generate(gpt, TOKENIZER, ["?"] * location + [prompts[location]], **settings)[location]
        assert alone.ids == together[location].ids


def test_streamed_pieces_equal_the_text() -> None:
    gpt = decoded_model("rotary", 24)
    settings: dict[str, Any] = {"sampler": CHAIN, "max_new_tokens": 60, "seed": 3}
    whole = generate(gpt, TOKENIZER, "é", **settings)[0]
    assert whole.text == TOKENIZER.decode(whole.ids)
    streamed = stream(gpt, TOKENIZER, "é", **settings)
    assert "".join(streamed) == whole.text
    stop = whole.text[20:23]
    cut = generate(gpt, TOKENIZER, "é", **settings, stop=stop)[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish == "stop"


@pytest.mark.parametrize("name", MODELS)
def test_scores_equal_those_of_the_full_forward(name: str) -> None:
    gpt = decoded_model(name, 64)
    ids = torch.tensor(TOKENIZER.encode("A text of some forty letters, to be read."))
    with torch.no_grad():
        log_p = gpt(ids[None]).logits[0].log_softmax(-1)
        loss = gpt(ids[None, :-1], ids[None, 1:]).loss
    result = score(gpt, ids, chunk=9)
    torch.testing.assert_close(result, log_p[:-1].gather(-1, ids[1:, None])[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(-result.mean(), loss, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_beams_use_their_own_cache(name: str) -> None:
    gpt = decoded_model(name, 64)
    for beam in beam_search(gpt, TOKENIZER, "start", width=3, max_new_tokens=12, stop_ids=()):
        whole = score(gpt, [*TOKENIZER.encode("start"), *beam.ids])
        assert beam.log_probability == pytest.approx(float(whole[4:].sum()), abs=1e-3)
