"""Decoding compiled to one graph with a static cache: no graph break, no recompilation, the numbers of eager decoding."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from gptkit.core.errors import StateError
from gptkit.model.gpt import GPT
from tests.support.presets import V, small_preset

PRESETS = ["gpt2", "modern", "gemma3-1b", "qwen3-0.6b", "deepseek-v3", "gpt-oss-20b", "qwen3-next-80b-a3b"]
N_TOKENS = 60
"""Tokens that are decoded: windows of 24 tokens wrap around twice."""
QUICK = ("gpt2", "gemma3-1b", "qwen3-next-80b-a3b")
"""Presets of the fast tests of training: learned positions, windows, experts and recurrent layers."""


def prompt(rows: int = 2, length: int = 7) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@torch.no_grad()
def decode(model: GPT, n_tokens: int, backend: str) -> None:
    """Decode greedily, compiled and eager; the compiled step is one graph that is compiled once."""
    ids = prompt()
    growing, static = model.new_cache(2), model.new_cache(2, static=True)
    logits = model(ids, cache=growing, last_only=True).logits
    torch.testing.assert_close(model(ids, cache=static, last_only=True).logits, logits, atol=1e-5, rtol=1e-5)
    step = torch.compile(model, fullgraph=True, dynamic=False, backend=backend)
    for _ in range(n_tokens):
        chosen = logits.argmax(-1)
        logits = model(chosen, cache=growing).logits
        torch.testing.assert_close(step(chosen, cache=static).logits, logits, atol=1e-4, rtol=1e-4)
    assert static.length == growing.length == ids.shape[1] + n_tokens
    assert counters["stats"]["unique_graphs"] == 1, "the step was compiled again"
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_decode_step_is_one_graph_for_all_tokens(preset: str) -> None:
    decode(small_preset(preset), N_TOKENS, "aot_eager")


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(preset, marks=pytest.mark.slow if preset in ("gpt2", "gemma3-1b") else pytest.mark.nightly)
        for preset in PRESETS
    ],
)
def test_decode_step_compiled_by_inductor(preset: str) -> None:
    decode(small_preset(preset), N_TOKENS, "inductor")


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS]
)
def test_training_step_is_one_graph(preset: str) -> None:
    """Several steps use one graph, and losses and weights are those of eager training."""
    eager, ids = small_preset(preset).train(), prompt(2, 24)
    for module in eager.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0  # random numbers differ between the two
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model = copy.deepcopy(eager)
    step = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    losses = []
    for each, call in ((eager, eager), (model, step)):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        losses.append([])
        for _ in range(3):
            loss = call(ids[:, :-1], ids[:, 1:]).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)
    for weight, other in zip(eager.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(weight, other, atol=1e-5, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] == 1


def small(**changes: Any) -> GPT:
    attention = {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, **changes.pop("attention", {})}
    spec = {"d_model": 32, "n_layers": 2, "context_length": 64, "attention": attention, **changes}
    return GPT(spec, V).double().eval()


@torch.no_grad()
@pytest.mark.parametrize(
    "attention",
    [
        {},
        {"window": 5},
        {"name": "gated-delta", "d_key": 8, "d_value": 8},
        {"name": "mamba2", "d_head": 8, "d_state": 6},
        {"name": "mamba1", "d_inner": 24, "d_state": 6},
        {"name": "mamba1", "d_inner": 24, "n_heads": 3, "d_state": 6},
        {"name": "rg-lru", "n_heads": 4},
        {"name": "mlstm", "n_heads": 2},
        {"name": "rwkv4", "d_inner": 24},
        {"name": "differential", "n_heads": 4, "n_kv_heads": 2},
        {"name": "convolutional", "n_heads": 4, "n_kv_heads": 2, "d_head": 8, "feature_width": 3, "sliding_window": 5},
        {"name": "grouped-query", "n_heads": 4, "d_head": 8, "kv_conv": 3, "relative_width": 3, "window": 5},
        {"name": "expert-heads", "n_experts": 4, "n_kv_heads": 2},
        {"name": "lightning", "d_head": 8},
        {"name": "hybrid", "recurrence": {"name": "lightning", "d_head": 8}},
    ],
)
def test_static_cache_equals_a_growing_one(attention: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"position": "none"} if "name" in attention else {}
    if "name" in attention:
        model = (
            GPT({"d_model": 32, "n_layers": 2, "context_length": 64, "attention": attention, **fields}, V).double().eval()
        )
    else:
        model = small(attention=attention)
    ids = prompt(3, 20)
    padding = torch.tensor([0, 2, 1])
    growing, static = (model.new_cache(3, left_padding_B=padding, static=static) for static in (False, True))

    def both(begin: int, end: int) -> None:
        expected = model(ids[:, begin:end], cache=growing).logits
        torch.testing.assert_close(model(ids[:, begin:end], cache=static).logits, expected, atol=1e-9, rtol=1e-9)

    both(0, 7)
    both(7, 8)
    for cache in (growing, static):
        cache.mark()
    both(8, 12)
    for cache in (growing, static):
        cache.truncate(8)
    both(8, 9)
    rows = [2, 0, 1]
    ids = ids[rows]
    for cache in (growing, static):
        cache.reorder(rows)
    both(9, 14)
    assert static.length == 14


@torch.no_grad()
def test_static_cache_rejects_more_tokens_than_its_capacity() -> None:
    model = small()
    cache = model.new_cache(2, 8, static=True)
    model(prompt(), cache=cache)
    with pytest.raises(StateError, match="do not fit"):
        model(prompt(2, 2), cache=cache)
    step = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    step(prompt(2, 1), cache=cache)
    with pytest.raises((RuntimeError, IndexError)):
        step(prompt(2, 1), cache=cache)


def test_static_cache_is_rejected_if_positions_depend_on_the_length() -> None:
    scaling = {"name": "dynamic", "original_context_length": 12}
    with pytest.raises(StateError, match="static cache cannot be used with position 'rotary'"):
        small(position={"name": "rotary", "scaling": scaling}).new_cache(1, static=True)


def test_static_cache_has_a_fixed_number_of_rows() -> None:
    model = small()
    one, two = model.new_cache(1, static=True), model.new_cache(1, static=True)
    with pytest.raises(StateError, match="fixed number of rows"):
        one.join(two, 8)
