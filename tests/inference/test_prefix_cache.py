"""Reuse of the caches of recent prompts: equal tokens, in bounded memory, for every form of cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptkit.components.drafter.ngram import NgramSpec
from gptkit.core.errors import StateError
from gptkit.inference import Request, RequestState, Scheduler, generate
from gptkit.inference.prefixes import PrefixCache
from gptkit.inference.speculative import SpeculativeScheduler
from tests.support.decoded_models import GREEDY, SCHEDULED, TOKENIZER, decoded_model
from tests.support.fakes import Bytes, Recurrent

SYSTEM = "The same system prompt for everyone. "
REUSING = {"rotary", "learned", "alibi", "window", "latent"}
"""The models whose states can return to a prefix; here the window has not slid far."""


def answer(scheduler: Scheduler, *prompts: str, n: int = 20) -> list[RequestState]:
    states = [scheduler.submit(Request(TOKENIZER.encode(each), sampler=GREEDY, max_new_tokens=n)) for each in prompts]
    while not scheduler.idle:
        scheduler.step()
    return states


@pytest.mark.parametrize("busy", [3, 128])
@pytest.mark.parametrize("name", SCHEDULED)
def test_tokens_equal_those_without_reuse(name: str, busy: int) -> None:
    gpt = decoded_model(name, 128)
    scheduler = Scheduler(gpt, TOKENIZER, prefix_bytes=2**30, prefill_chunk_busy=busy)
    first = answer(scheduler, SYSTEM + "One?", "Short.")
    later = answer(scheduler, SYSTEM + "Another one!", SYSTEM + "One?", "Something else, unknown", SYSTEM + "One? Yes.")
    for state in (*first, *later):
        prompt = state.request.prompt_ids
        (alone,) = generate(gpt, TOKENIZER, [list(prompt)], sampler=GREEDY, max_new_tokens=20, stop_ids=())
        assert state.history[len(prompt) :] == alone.ids
    n_system = len(TOKENIZER.encode(SYSTEM))
    assert [state.n_cached for state in first] == [0, 0]
    if name in REUSING:
        n_one = len(TOKENIZER.encode(SYSTEM + "One?"))
        assert [state.n_cached for state in later] == [n_system, n_one - 1, 0, n_one]
    else:
        # A recurrent state has the whole prompt or none of it; a position by length changes with the text.
        expected = len(TOKENIZER.encode(SYSTEM + "One?")) if name == "recurrent" else 0
        assert [state.n_cached for state in later] == [0, 0, 0, expected]


@pytest.mark.parametrize("name", ["rotary", "window", "recurrent"])
def test_only_the_rest_is_computed(name: str) -> None:
    gpt, lengths = decoded_model(name, 128), []
    gpt.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape))
    scheduler = Scheduler(gpt, TOKENIZER, prefix_bytes=2**30)
    answer(scheduler, SYSTEM, n=1)
    lengths.clear()
    (state,) = answer(scheduler, SYSTEM + "And?", n=1)
    assert state.n_cached == len(SYSTEM)
    assert lengths == [(1, 4)]


def test_window_that_has_slid_past_the_prefix_is_not_reused() -> None:
    gpt = decoded_model("window", 256)
    scheduler = Scheduler(gpt, TOKENIZER, prefix_bytes=2**30)
    answer(scheduler, SYSTEM + "x" * 100, n=1)
    (state,) = answer(scheduler, SYSTEM + "y" * 100)
    assert state.n_cached == 0
    (alone,) = generate(gpt, TOKENIZER, SYSTEM + "y" * 100, sampler=GREEDY, max_new_tokens=20, stop_ids=())
    assert state.history[len(SYSTEM) + 100 :] == alone.ids


def test_speculative_scheduler_reuses_prefixes() -> None:
    gpt = decoded_model("rotary", 128)
    scheduler = SpeculativeScheduler(gpt, TOKENIZER, NgramSpec(min_n=1), prefix_bytes=2**30)
    answer(scheduler, SYSTEM + "One?")
    (state,) = answer(scheduler, SYSTEM + "Two?")
    (alone,) = generate(gpt, TOKENIZER, SYSTEM + "Two?", sampler=GREEDY, max_new_tokens=20, stop_ids=())
    assert state.n_cached == len(SYSTEM)
    assert state.history[len(SYSTEM) + 4 :] == alone.ids


def test_memory_is_bounded_and_the_least_recently_used_is_removed() -> None:
    gpt = decoded_model("rotary", 128)
    prompts = [letter * 40 for letter in "abc"]
    one = Scheduler(gpt, TOKENIZER, prefix_bytes=2**30)
    answer(one, prompts[0], n=1)
    size = one._prefixes.bytes
    assert size == 2 * 2 * 40 * 32 * 4  # keys and values, layers, tokens, width, bytes: no spare capacity
    scheduler = Scheduler(gpt, TOKENIZER, prefix_bytes=2 * size)
    answer(scheduler, prompts[0], n=1)
    answer(scheduler, prompts[1], n=1)
    answer(scheduler, prompts[0], n=1)
    answer(scheduler, prompts[2], n=1)
    assert scheduler._prefixes.bytes == 2 * size
    assert [answer(scheduler, each, n=1)[0].n_cached for each in (prompts[0], prompts[2])] == [39, 39]
    assert answer(scheduler, prompts[1], n=1)[0].n_cached == 0
    answer(scheduler, "z" * 100, n=1)  # longer than the memory
    assert len(scheduler._prefixes) == 2


def test_longer_prompt_replaces_its_beginning() -> None:
    scheduler = Scheduler(decoded_model("rotary", 128), TOKENIZER, prefix_bytes=2**30)
    for n_tokens in (20, 60, 40):
        answer(scheduler, "q" * n_tokens, n=1)
        assert len(scheduler._prefixes) == 1
    assert answer(scheduler, "q" * 60 + "!", n=1)[0].n_cached == 60


def test_caches_that_cannot_be_copied_are_not_reused() -> None:
    tokenizer = Bytes()
    scheduler = Scheduler(Recurrent(context_length=128), tokenizer, prefix_bytes=2**30)
    for _ in range(2):
        state = scheduler.submit(Request(tokenizer.encode(SYSTEM), sampler=GREEDY, max_new_tokens=3))
        while not scheduler.idle:
            scheduler.step()
        assert state.n_cached == len(scheduler._prefixes) == 0


@pytest.mark.parametrize("name", sorted(REUSING | {"recurrent"}))
def test_extracted_row_continues_as_its_row(name: str) -> None:
    gpt = decoded_model(name, 96)
    ids = torch.randint(256, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        cache: Any = gpt.new_cache(2, 60, left_padding_B=torch.tensor([0, 7]))
        gpt(ids, cache=cache)
        row = cache.extract(1, 50)
        assert (row.batch, row.length, row.capacity, row.left_padding_B) == (1, 23, 50, None)
        more = torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(2))
        logits = gpt(more, cache=cache).logits
        torch.testing.assert_close(gpt(more[1:], cache=row).logits, logits[1:], atol=3e-5, rtol=0)
        with pytest.raises(StateError, match="cannot hold"):
            cache.extract(0, 5)


def test_cache_that_changes_with_its_length_is_not_copied() -> None:
    gpt = decoded_model("dynamic", 96)
    cache = gpt.new_cache(1, 20)
    with pytest.raises(StateError, match="may change"):
        cache.extract(0)
    assert PrefixCache(2**20).take([1] * 40, 1, 96) is None
