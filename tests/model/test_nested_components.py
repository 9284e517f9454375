"""Nested components are resolved, checked, built and cached at every depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.head import HeadSpec
from gptkit.kinds.norm import NormSpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import Head
from tests.model.test_pairs import V, ids


class Deep(NormSpec):
    """Component whose width depends on the context."""

    name: Literal["deep"] = "deep"
    width: int | None = None

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(width=self.width or context.d_model)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if self.width == 7:
            yield Problem(("width",), "is 7; choose another")

    def build(self, context: BuildContext, *, dim: int) -> Any:
        return torch.nn.LayerNorm(dim)


class Outer(FeedForwardSpec):
    """Component with norms in a field, a tuple and a mapping, which calls none of their methods."""

    name: Literal["outer"] = "outer"
    one: NormSpec = component("rms", description="A norm.")
    several: tuple[NormSpec, ...] = ()
    named: Mapping[str, NormSpec] = MappingProxyType({})

    def build(self, context: BuildContext) -> Any:
        raise NotImplementedError


def test_nested_components_are_resolved_and_checked_at_every_depth() -> None:
    inner = Outer(one=Deep(), several=(Deep(),), named={"a": Deep()})
    spec = ModelSpec.model_validate({"d_model": 48, "feedforward": inner, "attention": {"name": "multi-head", "n_heads": 2}})
    result: Any = spec.feedforward
    assert [norm.width for norm in (result.one, result.several[0], result.named["a"])] == [48, 48, 48]
    wrong = Outer(one=Deep(width=7), several=(Deep(), Deep(width=7)), named={"a": Deep(width=7)})
    with pytest.raises(ValidationError) as caught:
        ModelSpec.model_validate({"d_model": 48, "feedforward": wrong, "attention": {"name": "multi-head", "n_heads": 2}})
    assert {".".join(map(str, error["loc"])) for error in caught.value.errors()} == {
        "feedforward.one.width",
        "feedforward.several.1.width",
        "feedforward.named.a.width",
    }


class AttendingHeadSpec(HeadSpec):
    """One more block before the projection to the vocabulary."""

    name: Literal["attending"] = "attending"
    inner: HeadSpec = component("linear", description="Scores tokens.")
    block: BlockSpec = component("pre-norm", description="The block.")
    attention: AttentionSpec | None = None

    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        return AttendingHead(self, context, embedding)


class AttendingHead(Head):
    def __init__(self, spec: AttendingHeadSpec, context: BuildContext, embedding: Embedding) -> None:
        super().__init__()
        self.block = spec.block.build(context)
        self.inner = spec.inner.build(context, embedding=embedding)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        y: Tensor = self.inner(self.block(x_BTE, forward), forward)
        return y

    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        assert forward.documents_BT is None or forward.documents_BT.shape == targets_BT.shape
        loss = self.inner.loss(self.block(x_BTE, forward), targets_BT, forward)
        forward.add_loss("head_size", x_BTE.square().mean())
        return loss


def attending(**parts: Any) -> GPT:
    return GPT({**PARTS, "head": AttendingHeadSpec(), **parts}, V).double().eval()


PARTS: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 2,
    "context_length": 24,
    "attention": {"name": "multi-head", "n_heads": 2},
    "initializer": {"name": "xavier"},
}


@torch.no_grad()
def test_attention_in_a_head_decodes_truncates_and_reorders() -> None:
    model, tokens = attending(), ids(2, 16)
    full = model(tokens).logits
    torch.testing.assert_close(model(tokens, last_only=True).logits, full[:, -1:])
    cache = model.new_cache(2)
    model(tokens[:, :8], cache=cache, last_only=True)
    model(ids(2, 3, seed=4), cache=cache)
    cache.truncate(8)
    for at in range(8, 12):
        step = model(tokens[:, at : at + 1], cache=cache, last_only=True).logits
        torch.testing.assert_close(step[:, -1], full[:, at])
    cache.reorder([1, 0])
    step = model(tokens[[1, 0], 12:13], cache=cache).logits
    torch.testing.assert_close(step[:, -1], full[[1, 0], 12])


def test_head_receives_documents_and_adds_named_losses() -> None:
    model, tokens = attending(), ids(2, 16)
    documents = torch.tensor([[0] * 9 + [1] * 7, [4] * 4 + [2] * 12])
    out = model(tokens, ids(2, 16, seed=1), documents_BT=documents)
    assert set(out.losses) == {"head_size"}
    packed = model(tokens, documents_BT=documents).logits
    torch.testing.assert_close(packed[0, 9:], model(tokens[:1, 9:]).logits[0])


def test_head_with_an_attention_is_resolved_and_checked_in_a_layer() -> None:
    head = AttendingHeadSpec(attention={"name": "grouped-query", "n_heads": 4})
    spec = ModelSpec.model_validate({**PARTS, "head": head})
    result: Any = spec.head
    assert result.attention.n_kv_heads is not None
    with pytest.raises(ValidationError) as caught:
        ModelSpec.model_validate({**PARTS, "head": AttendingHeadSpec(attention="gated-delta")})
    assert [error["loc"] for error in caught.value.errors()] == [("head", "attention")]
    assert "which attention 'gated-delta' does not accept" in caught.value.errors()[0]["msg"]


class CrossDecoderSpec(BlockSpec):
    """YOCO: the second half of the layers computes only the last token if no others are needed."""

    name: Literal["cross-decoder"] = "cross-decoder"
    skips: bool = True
    seen: ClassVar[list[int]] = []

    def build(self, context: BuildContext) -> Any:
        return CrossDecoder(self, context)


class CrossDecoder(torch.nn.Module):
    """Self-decoder layer, followed by layers that attend to its outputs."""

    def __init__(self, spec: CrossDecoderSpec, context: BuildContext) -> None:
        super().__init__()
        self.first = context.parts.index == 0
        self.skips = spec.skips
        self.publishes = (("memory",),) if self.first else ()
        self.reads = () if self.first else (("memory",),)
        self.mix = torch.nn.Linear(context.d_model, context.d_model)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        CrossDecoderSpec.seen.append(x_BTE.shape[1])
        if self.first:
            x_BTE = x_BTE + self.mix(x_BTE.cumsum(1))
            forward.publish(self, ("memory",), x_BTE)
            return x_BTE[:, -1:] if self.skips and forward.last_only else x_BTE
        memory_BSE = forward.read(self, ("memory",))
        mask = forward.mask(0, memory_BSE.shape[1]).dense()[:, 0]
        scores = (self.mix(x_BTE) @ memory_BSE.transpose(1, 2)).masked_fill(~mask, float("-inf"))
        return x_BTE + scores.softmax(-1) @ memory_BSE


@torch.no_grad()
def test_blocks_may_skip_tokens_that_are_not_needed() -> None:
    model = GPT({**PARTS, "n_layers": 3, "block": CrossDecoderSpec()}, V).double().eval()
    tokens, padding = ids(2, 10), torch.tensor([0, 3])
    full = model(tokens, left_padding_B=padding).logits
    CrossDecoderSpec.seen.clear()
    last = model(tokens, left_padding_B=padding, last_only=True).logits
    assert CrossDecoderSpec.seen == [10, 1, 1]
    torch.testing.assert_close(last, full[:, -1:])


@pytest.mark.parametrize("bias", [True, False])
def test_final_norm_may_depend_on_the_fields_of_the_last_block(bias: bool) -> None:
    class Sometimes(BlockSpec):
        name: Literal["sometimes"] = "sometimes"
        normed: bool = False

        @property
        def final_norm(self) -> bool:
            return not self.normed

        def build(self, context: BuildContext) -> Any:
            raise NotImplementedError

    spec = ModelSpec.model_validate({**PARTS, "block": Sometimes(normed=bias)})
    assert (spec.final_norm is None) is bias
    layers = [{"block": "pre-norm"}, {"block": Sometimes(normed=bias)}]
    assert (ModelSpec.model_validate({**PARTS, "layers": layers}).final_norm is None) is bias


class LoopedSpec(BlockSpec):
    """A block applied several times with the same weights."""

    name: Literal["looped"] = "looped"
    block: BlockSpec = component("pre-norm", description="The block.")
    times: int = 2

    def build(self, context: BuildContext) -> Any:
        return Looped(self, context)


class Looped(torch.nn.Module):
    def __init__(self, spec: LoopedSpec, context: BuildContext) -> None:
        super().__init__()
        self.times = spec.times
        self.block = spec.block.build(context)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        for _ in range(self.times):
            x_BTE = self.block(x_BTE, forward)
        return x_BTE


@torch.no_grad()
def test_looped_depth_decodes_with_a_state_for_each_application() -> None:
    model = GPT({**PARTS, "block": LoopedSpec(times=3)}, V).double().eval()
    tokens = ids(2, 12)
    full, cache = model(tokens).logits, model.new_cache(2)
    model(tokens[:, :6], cache=cache)
    model(ids(2, 3, seed=3), cache=cache)
    cache.truncate(6)
    for at in range(6, 12):
        step = model(tokens[:, at : at + 1], cache=cache).logits
        torch.testing.assert_close(step[:, -1], full[:, at])
