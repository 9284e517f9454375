"""Windows of a static cache: a ring buffer equals a growing cache over several wraps, in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptkit.core.errors import StateError
from gptkit.model.gpt import GPT
from gptkit.nn.cache.ring import SPARE, RingState
from gptkit.nn.cache.static import StaticState
from gptkit.nn.cache.view import Ring

V, CAPACITY = 31, 160
LAYERS: dict[str, dict[str, Any]] = {
    "window": {"attention": {"window": 5}},
    "window-1": {"attention": {"window": 1}},
    "chunk": {"attention": {"chunk": 6}},
    "grouped": {"attention": {"name": "grouped-query", "n_kv_heads": 2, "window": 7}},
    "sinks": {"attention": {"sinks": True, "window": 5, "softcap": 3.0}},
    "alibi": {"attention": {"window": 5}, "position": "alibi"},
    "t5-bias": {"attention": {"window": 9}, "position": {"name": "t5-bias", "n_buckets": 8, "max_distance": 20}},
    "latent": {"attention": {"name": "latent", "window": 5, "kv_rank": 8, "d_nope": 8, "d_rotary": 8, "d_value": 8}},
    "mixed": {"layers": [{"attention": {"window": 5}}, {}, {"attention": {"window": 8}}], "n_layers": 3},
}


def make(layer: str = "window", **more: Any) -> GPT:
    fields = {**LAYERS[layer], **more}
    attention = {"name": "multi-head", "n_heads": 4, **fields.pop("attention", {})}
    spec = {"d_model": 32, "n_layers": 2, "context_length": CAPACITY, "attention": attention, **fields}
    model = GPT(spec, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.double().eval()


def ids(length: int = CAPACITY, rows: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_new", [1, 2, 5, 9])
def test_indices_are_those_of_a_buffer_that_is_written_token_by_token(n_new: int) -> None:
    size = 5
    slots: list[int | None] = [None] * size
    for held in range(23):
        ring = Ring(torch.tensor(held), size, n_new)
        before = list(slots)
        if n_new == 1:
            before[held % size] = held
        new = list(range(held, held + n_new)) if n_new > 1 else []
        assert [index if index >= 0 else None for index in ring.indices().tolist()] == [*before, *new]
        assert ring.indices()[ring.queries()].tolist() == list(range(held, held + n_new))
        slots[held % size] = held


@torch.no_grad()
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("padded", [False, True])
def test_ring_equals_a_growing_cache_over_several_wraps(layer: str, padded: bool) -> None:
    model, tokens = make(layer), ids()
    padding = torch.tensor([0, 3]) if padded else None
    growing, static = (model.new_cache(2, left_padding_B=padding, static=static) for static in (False, True))
    assert any(isinstance(state, RingState) for state in static.states)
    at = 0
    for piece in (40, 1, 1, 3, *([1] * 50), 2, 23, *([1] * 30), 7, 3):
        new = tokens[:, at : at + piece]
        expected = model(new, cache=growing).logits
        keep = slice(3 if padded and at == 0 else 0, None)
        torch.testing.assert_close(model(new, cache=static).logits[:, keep], expected[:, keep], atol=1e-9, rtol=1e-9)
        at += piece
    assert static.length == growing.length == at == CAPACITY


@torch.no_grad()
def test_memory_does_not_grow_with_the_capacity() -> None:
    model = make(n_layers=1)
    assert model.new_cache(1, static=True).bytes == make(n_layers=1, context_length=10_000).new_cache(1, static=True).bytes
    (state,) = model.new_cache(1, 5 + SPARE, static=True).states
    assert type(state) is StaticState  # the ring would be as large


@torch.no_grad()
def test_terms_that_depend_on_order_receive_ordered_keys() -> None:
    model, tokens = make(position="shaw"), ids()
    static = model.new_cache(2, static=True)
    assert all(type(state) is StaticState for state in static.states)
    model(tokens[:, :60], cache=static)
    step = model(tokens[:, 60:61], cache=static).logits
    torch.testing.assert_close(step[:, 0], model(tokens[:, :61]).logits[:, -1], atol=1e-9, rtol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("layer", ["window", "mixed"])
def test_cache_truncates_as_far_as_tokens_are_held_and_refuses_without_a_change(layer: str, static: bool) -> None:
    model, tokens = make(layer), ids()
    cache = model.new_cache(2, static=static)

    def steps(begin: int, end: int, text: torch.Tensor = tokens) -> None:
        for at in range(begin, end):
            step = model(text[:, at : at + 1], cache=cache).logits
            torch.testing.assert_close(step[:, -1], model(text[:, : at + 1]).logits[:, -1], atol=1e-9, rtol=1e-9)

    model(tokens[:, :70], cache=cache)
    other = ids(seed=3)
    model(other[:, 70:78], cache=cache)
    cache.truncate(70)
    steps(70, 74)
    cache.truncate(69)
    model(other[:, 69:72], cache=cache)
    cache.truncate(69)
    steps(69, 71)
    for length in (30, 3):
        with pytest.raises(StateError, match="cannot be discarded"):
            cache.truncate(length)
    steps(71, 73)
    cache.reorder([1, 0])
    steps(73, 75, tokens[[1, 0]])
    cache.truncate(0)
    assert cache.length == 0
    model(other[:, :50], cache=cache)
    steps(50, 52, other)


@torch.no_grad()
def test_tokens_that_no_write_has_overwritten_are_held() -> None:
    model, tokens = make(), ids()
    cache = model.new_cache(2, static=True)
    model(tokens[:, :20], cache=cache)  # fewer than the slots
    cache.truncate(2)
    step = model(tokens[:, 2:3], cache=cache).logits
    torch.testing.assert_close(step[:, -1], model(tokens[:, :3]).logits[:, -1], atol=1e-9, rtol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("layer", ["window", "mixed"])
def test_prefix_within_the_first_call_works_with_a_static_cache(layer: str) -> None:
    model, tokens = make(layer), ids()
    prefix, padding = torch.tensor([9, 4]), torch.tensor([0, 2])
    full = model(tokens[:, :60], prefix_B=prefix, left_padding_B=padding).logits
    cache = model.new_cache(2, static=True, prefix_B=prefix, left_padding_B=padding)
    prefill = model(tokens[:, :12], cache=cache).logits
    torch.testing.assert_close(prefill[0], full[0, :12], atol=1e-9, rtol=1e-9)
    for at in range(12, 60):
        step = model(tokens[:, at : at + 1], cache=cache).logits
        torch.testing.assert_close(step[:, 0], full[:, at], atol=1e-9, rtol=1e-9)
    short = model.new_cache(2, static=True, prefix_B=prefix)
    with pytest.raises(StateError, match="a bidirectional prefix of 9 tokens arrives in several calls"):
        model(tokens[:, :8], cache=short)
    short = model.new_cache(2, static=True, prefix_B=prefix)
    model(tokens[:, :12], cache=short)
    short.truncate(5)  # so that part of the prefix remains
    with pytest.raises(StateError, match="arrives in several calls"):
        model(tokens[:, 5:8], cache=short)
