"""Decoding states: one per call site, none where a layer reads another's, and marks inside composite states."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import pytest
import torch
from torch import Tensor, nn

from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.components.attention.multi_head import MultiHeadSpec
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.model.gpt import GPT
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.composite import CompositeState
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from tests.support.looped import LoopedSpec

V = 31


class SharingSpec(MultiHeadSpec):
    """Attention whose second layer reads the keys and values of the first."""

    name: Literal["sharing"] = "sharing"  # type: ignore[assignment]

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        return Sharing(self, context)


class Sharing(GroupedQueryAttention):
    def __init__(self, spec: MultiHeadSpec, context: BuildContext) -> None:
        super().__init__(spec, context)
        key = ("sharing",)
        self.reads, self.publishes = ((key,), ()) if self.layer else ((), (key,))

    def new_state(self, allocation: Allocation) -> Any:
        return None if self.layer else super().new_state(allocation)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        q, k, v = self.qkv(x_BTE).view(n_batch, n_tokens, 3, self.heads.n_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = self.rotate(q, k, forward)
        if self.layer:
            assert forward.state(self) is None
            offset, k, v = forward.read(self, ("sharing",))
        else:
            offset: KeyOffset = forward.offset
            state = cast("TokenState | None", forward.state(self))
            if state is not None:
                offset, (k, v) = state.append(k, v)
            forward.publish(self, ("sharing",), (offset, k, v))
        out = self.score(q, k, v, forward, offset)
        return self.output(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class HybridSpec(AttentionSpec):
    """Attention beside a running sum, in one layer."""

    name: Literal["hybrid"] = "hybrid"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate"})

    def build(self, context: BuildContext) -> Attention:
        return Hybrid(context)


class Hybrid(Attention):
    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.inner: Any = GroupedQueryAttention(MultiHeadSpec(n_heads=2, d_head=8), context)
        self.mix = nn.Linear(context.d_model, context.d_model)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        sums = self.mix(x_BTE).cumsum(dim=1)
        state = cast("CompositeState | None", forward.state(self))
        if state is not None:
            memory = cast("RecurrentState", state["memory"])
            assert memory.tensors is not None
            sums = sums + memory.tensors[0][:, None]
            memory.update(x_BTE.shape[1], sums[:, -1])
        return sums + self.inner(x_BTE, forward)  # type: ignore[no-any-return]

    def new_state(self, allocation: Allocation) -> CompositeState:
        return CompositeState(memory=allocation.recurrent(((self.mix.out_features,), allocation.dtype)))


def make(**parts: Any) -> GPT:
    model = GPT({"d_model": 16, "n_layers": 2, "context_length": 40, "attention": {"n_heads": 2}, **parts}, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.double().eval()


MODELS = {
    "looped": {"block": LoopedSpec(times=3)},
    "sharing": {"attention": SharingSpec(n_heads=2)},
    "hybrid": {"attention": HybridSpec()},
}


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_cached_equals_full_and_truncates(name: str, static: bool) -> None:
    model = make(**MODELS[name])
    ids = torch.randint(V, (2, 16), generator=torch.Generator().manual_seed(0))
    full, cache = model(ids).logits, model.new_cache(2, static=static)

    def step(begin: int, end: int) -> None:
        logits = model(ids[:, begin:end], cache=cache).logits
        torch.testing.assert_close(logits, full[:, begin:end], atol=1e-9, rtol=1e-9)

    step(0, 7)
    step(7, 8)
    cache.mark()
    model((ids[:, 8:11] + 1) % V, cache=cache)
    cache.truncate(8)
    step(8, 9)
    step(9, 16)


@torch.no_grad()
def test_module_called_three_times_has_three_states() -> None:
    model = make(block=LoopedSpec(times=3))
    cache = model.new_cache(1)
    before = cache.bytes
    model(torch.zeros(1, 4, dtype=torch.long), cache=cache)
    assert len(list(cache.states)) == 6
    assert cache.bytes == 3 * before


def test_sharer_allocates_nothing() -> None:
    assert 2 * make(attention=SharingSpec(n_heads=2)).new_cache(1).bytes == make().new_cache(1).bytes


@torch.no_grad()
def test_state_of_a_module_that_is_not_called_is_truncated_without_error() -> None:
    model = make()
    model.blocks[1] = nn.Identity()
    model.blocks[1].forward = lambda x, forward: x  # type: ignore[method-assign, assignment, misc]
    cache = model.new_cache(1)
    model(torch.zeros(1, 6, dtype=torch.long), cache=cache)
    cache.truncate(4)
    assert cache.length == 4
