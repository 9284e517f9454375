"""Blocks that skip tokens in prefill (YOCO): the result of the full forward pass, with less computation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gptkit.components.sampler.greedy import GreedySpec
from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.inference.request import Request
from gptkit.inference.scheduler import Scheduler
from gptkit.model.gpt import GPT
from tests.support.yoco import D_HEAD, N_HEADS, CrossSpec, MemorySpec

V, D_MODEL, WINDOW, T = 31, 16, 4, 20
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # the kit computes the angles of positions in fp32


def yoco(skips: bool = True, **parts: Any) -> GPT:
    """Return a model of four layers, two of which are the cross-decoder, with random weights."""
    own = {"attention": {"name": "multi-head", "n_heads": N_HEADS, "window": WINDOW}}
    layers = [own, {**own, "block": MemorySpec(skips=skips)}, *[{"attention": CrossSpec()}] * 2]
    fields = {"d_model": D_MODEL, "n_layers": 4, "context_length": 48, "layers": layers, "position": "rotary", "norm": "rms"}
    model = GPT({**fields, "feedforward": {"name": "mlp", "d_hidden": 24}, **parts}, V).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def tokens(rows: int = 2, length: int = T) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(1))


def formula(model: GPT, ids_BT: Tensor) -> Tensor:
    """Compute the logits of every position, from the paper's equations."""
    weight = dict(model.named_parameters())
    index = torch.arange(ids_BT.shape[1])
    distance_TS = index[:, None] - index
    angle_TD = index[:, None].double() * 10000.0 ** (-torch.arange(0, D_HEAD, 2).double() / D_HEAD)
    turn_TD = torch.polar(torch.ones_like(angle_TD), angle_TD)

    def norm(x: Tensor, name: str) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight[f"{name}.weight"]

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, D_HEAD)).transpose(1, 2)

    def rotated(x: Tensor) -> Tensor:
        turned = torch.complex(*x.chunk(2, dim=-1)) * turn_TD
        return torch.cat((turned.real, turned.imag), dim=-1)

    def attend(q: Tensor, k: Tensor, v: Tensor, reach: int) -> Tensor:
        allowed_TS = (distance_TS >= 0) & (distance_TS < reach)
        scores = (rotated(q) @ rotated(k).transpose(2, 3) / D_HEAD**0.5).masked_fill(~allowed_TS, float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    x, memory = weight["embedding.table.weight"][ids_BT], ()
    for layer in range(4):
        block = f"blocks.{layer}"
        h = norm(x, f"{block}.attention_norm")
        if layer < 2:
            q, k, v = (heads(part) for part in (h @ weight[f"{block}.attention.qkv.weight"].T).chunk(3, dim=-1))
            out = attend(q, k, v, WINDOW)
        else:
            out = attend(heads(h @ weight[f"{block}.attention.queries.weight"].T), *memory, T)
        x = x + out @ weight[f"{block}.attention.output.weight"].T
        h = norm(x, f"{block}.feedforward_norm") @ weight[f"{block}.feedforward.up.weight"].T
        h = F.gelu(h + weight[f"{block}.feedforward.up.bias"]) @ weight[f"{block}.feedforward.down.weight"].T
        x = x + h + weight[f"{block}.feedforward.down.bias"]
        if layer == 1:
            packed = norm(x, f"{block}.memory_norm") @ weight[f"{block}.memory.weight"].T
            memory = tuple(heads(part) for part in packed.chunk(2, dim=-1))
    return norm(x, "final_norm") @ weight["head.weight"].T


@contextmanager
def computed(model: GPT) -> Iterator[list[list[int]]]:
    """Record the number of tokens that the feed-forward layer of each block computes in each call."""
    calls: list[list[int]] = [[] for _ in model.blocks]
    handles = [
        block.feedforward.register_forward_pre_hook(lambda module, args, call=call: call.append(args[0].shape[1]))  # type: ignore[union-attr, misc]
        for block, call in zip(model.blocks, calls, strict=True)
    ]
    yield calls
    for handle in handles:
        handle.remove()


@torch.no_grad()
def test_full_forward_pass_is_the_formula() -> None:
    model, ids = yoco(), tokens()
    expected = formula(model, ids)
    torch.testing.assert_close(model(ids).logits, expected, **CLOSE)
    with computed(model) as calls:
        last = model(ids, last_only=True).logits
    assert calls == [[T], [T], [1], [1]]
    torch.testing.assert_close(last[:, 0], expected[:, -1], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True], ids=["growing", "static"])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("parts", [[12], [5, 4, 3], [1, 11], [9, 1, 1, 1]], ids=str)
def test_cached_prefill_and_decoding_are_the_formula(parts: list[int], backend: str, static: bool) -> None:
    model, ids = yoco(attention_backend=backend), tokens()
    expected, cache = formula(model, ids), model.new_cache(2, static=static)
    begin = 0
    with computed(model) as calls:
        for length in parts:
            logits = model(ids[:, begin : begin + length], cache=cache, last_only=True).logits
            begin += length
            torch.testing.assert_close(logits[:, 0], expected[:, begin - 1], **CLOSE)
    assert calls == [parts, parts, [1] * len(parts), [1] * len(parts)]
    for at in range(begin, T):
        logits = model(ids[:, at : at + 1], cache=cache, last_only=True).logits
        torch.testing.assert_close(logits[:, 0], expected[:, at], **CLOSE)


@torch.no_grad()
def test_skipping_changes_no_state() -> None:
    """After a prefill that skips, the logits of all new tokens may be requested, and the cache may be truncated."""
    model, ids = yoco(), tokens()
    expected, cache = formula(model, ids), model.new_cache(2)
    model(ids[:, :10], cache=cache, last_only=True)
    several = model(ids[:, 10:14], cache=cache).logits
    torch.testing.assert_close(several, expected[:, 10:14], **CLOSE)
    cache.truncate(11)
    again = model(ids[:, 11:], cache=cache, last_only=True).logits
    torch.testing.assert_close(again[:, 0], expected[:, -1], **CLOSE)
    with_all = model.new_cache(2)
    model(ids, cache=with_all)
    assert cache.bytes == with_all.bytes
    assert len(list(cache.states)) == 3, "the cross-decoder has no state"


@torch.no_grad()
def test_prompts_of_uneven_length() -> None:
    model, ids, padding = yoco(), tokens(), torch.tensor([0, 3])
    full = model(ids, left_padding_B=padding).logits[:, -1:]
    torch.testing.assert_close(model(ids, left_padding_B=padding, last_only=True).logits, full)
    cache = model.new_cache(2, left_padding_B=padding)
    model(ids[:, :8], cache=cache, last_only=True)
    for end in (13, 14, 15):
        last = model(ids[:, cache.length : end], cache=cache, last_only=True).logits
        for row, start in enumerate(padding.tolist()):
            expected = formula(model, ids[row : row + 1, start:end])[0, -1]
            torch.testing.assert_close(last[row, 0], expected, **CLOSE)


def test_skipped_layers_compute_nothing_for_other_tokens() -> None:
    """The prefill costs what two of the four layers cost, and the last token of the others."""

    def flops(skips: bool, length: int) -> int:
        model = yoco(skips)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model(tokens(1, length), cache=model.new_cache(1), last_only=True)
        per_block = counter.get_flop_counts()
        return sum(sum(per_block[f"GPT.blocks.{layer}"].values()) for layer in (2, 3))

    assert flops(True, 40) < flops(False, 40) / 30
    assert flops(False, 1) <= flops(True, 40)


@torch.no_grad()
def test_generation_in_prefill_chunks_skips() -> None:
    """Requests of uneven length, processed in chunks and joined: the greedy continuations of the formula."""
    model, prompts = yoco(), [tokens(1, 9)[0].tolist(), tokens(2, 6)[1].tolist()]
    scheduler = Scheduler(model, ByteSpec().fit(iter(())), prefill_chunk=4)
    with computed(model) as calls:
        states = [scheduler.submit(Request(prompt, (GreedySpec(),), max_new_tokens=6)) for prompt in prompts]
        while not scheduler.idle:
            scheduler.step()
    for prompt, state in zip(prompts, states, strict=True):
        history = list(prompt)
        for _ in range(6):
            history.append(int(formula(model, torch.tensor([history]))[0, -1].argmax()))
        assert list(state.history) == history
    assert max(calls[0]) == 4
    assert set(calls[2]) == set(calls[3]) == {1}
