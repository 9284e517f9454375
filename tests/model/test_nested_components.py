"""Nested components are resolved, checked, built and cached at every depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.norm import NormSpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.looped import LoopedSpec, OneBlockSpec
from tests.support.nested_components import PARTS, AttendingHeadSpec
from tests.support.pairs import V, ids


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


def attending(**parts: Any) -> GPT:
    return GPT({**PARTS, "head": AttendingHeadSpec(), **parts}, V).double().eval()


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


@torch.no_grad()
@pytest.mark.parametrize("block", [LoopedSpec(times=3), OneBlockSpec(times=3)], ids=lambda block: str(block.name))
def test_looped_depth_decodes_with_a_state_for_each_application(block: BlockSpec) -> None:
    model = GPT({**PARTS, "block": block}, V).double().eval()
    tokens = ids(2, 12)
    full, cache = model(tokens).logits, model.new_cache(2)
    model(tokens[:, :6], cache=cache)
    assert len(list(cache.states)) == 6
    model(ids(2, 3, seed=3), cache=cache)
    cache.truncate(6)
    for at in range(6, 12):
        step = model(tokens[:, at : at + 1], cache=cache).logits
        torch.testing.assert_close(step[:, -1], full[:, at])


@torch.no_grad()
def test_caches_of_layers_that_are_one_block_are_joined() -> None:
    """The attention belongs to the model, not to a layer, and has a state for each layer all the same."""
    model, tokens = GPT({**PARTS, "block": OneBlockSpec(times=1)}, V).double().eval(), ids(2, 9)
    assert len(model.stateful) == 1
    full = model(tokens).logits
    caches = [model.new_cache(1), model.new_cache(1)]
    for row, cache in enumerate(caches):
        model(tokens[row : row + 1, :8], cache=cache)
    caches[0].join(caches[1], 24)
    torch.testing.assert_close(model(tokens[:, 8:], cache=caches[0]).logits[:, 0], full[:, 8])
