"""Attention weights are kept by layer and call: a call never overwrites the weights of another."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.model.gpt import GPT
from gptkit.nn.attention.base import Attention
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from tests.support.looped import LoopedSpec
from tests.support.nested_components import PARTS, AttendingHeadSpec
from tests.support.pairs import V, ids


class TwinsSpec(BlockSpec):
    """Block with two consecutive attentions."""

    name: Literal["twins"] = "twins"

    def build(self, context: BuildContext) -> Block:
        return Twins(context)


class Twins(Block):
    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.first = context.parts.attention.build(context)
        self.second = context.parts.attention.build(context)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_BTE = x_BTE + self.first(x_BTE, forward)
        y_BTE: Tensor = x_BTE + self.second(x_BTE, forward)
        return y_BTE


def make(**parts: Any) -> GPT:
    spec = {**PARTS, "position": "none", **parts}
    return GPT(spec, V).double().eval()


def calls_of(model: GPT) -> list[tuple[int, Tensor]]:
    """Record each call of an attention: its layer, and its weights computed from the input by the formula."""
    calls: list[tuple[int, Tensor]] = []

    def record(attention: nn.Module, args: tuple[Tensor, Forward]) -> None:
        assert isinstance(attention, GroupedQueryAttention)
        calls.append((attention.layer, softmax_weights(attention, args[0])))

    for module in model.modules():
        if isinstance(module, Attention):
            module.register_forward_pre_hook(record)
    return calls


def softmax_weights(attention: Any, x_BTE: Tensor) -> Tensor:
    q, k, _ = (x_BTE @ attention.qkv.weight.mT).chunk(3, dim=-1)
    q, k = (t.unflatten(-1, (attention.heads.n_heads, -1)).transpose(1, 2) for t in (q, k))
    visible = torch.ones(x_BTE.shape[1], x_BTE.shape[1]).tril().bool()
    return ((q @ k.mT) / math.sqrt(q.shape[-1])).masked_fill(~visible, float("-inf")).softmax(-1)


CALLS: dict[str, tuple[dict[str, Any], list[tuple[int, int]]]] = {
    "looped": ({"block": LoopedSpec(times=3)}, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
    "two in a layer": ({"block": TwinsSpec()}, [(0, 0), (0, 1), (1, 0), (1, 1)]),
    "in a head": ({"head": AttendingHeadSpec()}, [(0, 0), (1, 0), (2, 0)]),
    "looped, two in a layer": (
        {"block": LoopedSpec(block=TwinsSpec(), times=2), "n_layers": 1},
        [(0, 0), (0, 1), (0, 2), (0, 3)],
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_each_call_keeps_the_softmax_weights_that_it_used(case: str) -> None:
    parts, keys = CALLS[case]
    model = make(**parts)
    calls = calls_of(model)
    kept = model.attention_weights(ids(2, 9))
    assert list(kept) == keys
    assert [layer for layer, _ in calls] == [layer for layer, _ in keys]
    for weights, (_, expected) in zip(kept.values(), calls, strict=True):
        torch.testing.assert_close(weights, expected)
    tensors = list(kept.values())
    assert not any(torch.equal(one, two) for index, one in enumerate(tensors) for two in tensors[:index])


@pytest.mark.parametrize("case", CALLS)
def test_recomputation_keeps_the_same_weights(case: str) -> None:
    parts, keys = CALLS[case]
    model = make(**parts)
    plain = model(ids(2, 9), keep_weights=True).weights
    model.recompute = "blocks"
    out = model(ids(2, 9), keep_weights=True)
    assert list(out.weights) == keys
    out.logits.sum().backward()
    assert list(out.weights) == keys  # the second run of each block, in the backward pass, adds none
    for key in keys:
        torch.testing.assert_close(out.weights[key], plain[key])


def test_forks_of_one_layer_number_calls_onwards() -> None:
    forward, x_BTE = Forward(torch.zeros(1, 2, dtype=torch.long), keep_weights=True), torch.zeros(1, 2, 4)
    for value in range(3):
        outer = forward.fork(x_BTE)
        inner = outer.fork(x_BTE)
        inner.keep_weights(0, torch.full((1, 1, 2, 2), float(value)))
        outer.apply(inner.effects(x_BTE))
        forward.apply(outer.effects(x_BTE))
    assert forward.weights is not None
    assert {key: float(weights[0, 0, 0, 0]) for key, weights in forward.weights.items()} == {(0, 0): 0, (0, 1): 1, (0, 2): 2}


def test_weights_are_none_unless_requested() -> None:
    assert make()(ids(2, 9)).weights is None
    x_BTE = torch.zeros(1, 2, 4)
    forward = Forward(torch.zeros(1, 2, dtype=torch.long)).fork(x_BTE)
    forward.keep_weights(0, torch.ones(1, 1, 2, 2))
    assert forward.weights is None
    assert forward.effects(x_BTE).weights == {}
