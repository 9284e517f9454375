"""Copied modules that keep several states: attention in a window beside a running sum."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import pytest
import torch
from pydantic import Field
from torch import Tensor

from gptkit.ejection.hugging_face.writing import write_code
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.composite import CompositeState
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import TokenState
from gptkit.nn.forward import Forward
from gptkit.testing import run_checks
from tests.support.ejected import source_of


class SummedSpec(AttentionSpec):
    """Softmax attention, and the sum of all values of the text."""

    name: Literal["summed"] = "summed"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "bias"})
    sums: int = Field(1, ge=1, le=2, description="Number of sums.")

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures.of(context.parts.position)

    def build(self, context: BuildContext) -> SoftmaxAttention:
        return Summed(context, self.sums)


class Summed(SoftmaxAttention):
    def __init__(self, context: BuildContext, sums: int) -> None:
        super().__init__(context, HeadShape(2, 2, context.d_model // 2), scale=0.5)
        self.sums = sums
        self.qkv = context.linear(context.d_model, 3 * context.d_model, bias=False)
        self.output = context.linear(context.d_model, context.d_model, bias=False)

    def new_state(self, allocation: Allocation) -> CompositeState:
        total = ((self.output.in_features,), allocation.dtype)
        tokens = cast("TokenState", super().new_state(allocation))
        return CompositeState(tokens=tokens, total=allocation.recurrent(*[total] * self.sums))

    def project(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.qkv(x_BTE).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        q_BHTD, k_BHTD, v_BHTD = self.project(x_BTE, forward)
        state = cast("CompositeState | None", forward.state(self))
        sums = self.running(v_BHTD.transpose(1, 2).flatten(2), forward, None if state is None else state["total"])
        q_BHTD, k_BHTD = self.rotate(q_BHTD, k_BHTD, forward)
        offset: Any = forward.offset
        if state is not None:
            offset, (k_BHTD, v_BHTD) = cast("TokenState", state["tokens"]).append(k_BHTD, v_BHTD)
        out_BHTD = self.score(q_BHTD, k_BHTD, v_BHTD, forward, offset)
        return self.output(out_BHTD.transpose(1, 2).flatten(2) + 0.1 * sums)

    def running(self, v_BTE: Tensor, forward: Forward, state: Any) -> Tensor:
        if forward.valid_BT is not None:
            v_BTE = v_BTE.masked_fill(~forward.valid_BT[..., None], 0)
        kept = None if state is None else cast("RecurrentState", state).tensors
        sums = [torch.zeros_like(v_BTE[:, 0])] * self.sums if kept is None else list(kept)
        begins = (forward.positions == 0).expand(v_BTE.shape[:2])
        result = []
        for t in range(v_BTE.shape[1]):
            sums = [each.masked_fill(begins[:, t, None], 0) + v_BTE[:, t] for each in sums]
            result.append(torch.stack(sums).sum(0))
        if state is not None:
            state.update(v_BTE.shape[1], *sums)
        return torch.stack(result, dim=1)

    def combine(self, out_BHTV: Tensor, x_BTE: Tensor) -> Tensor:
        raise AssertionError


class TwoCaches(Summed):
    def new_state(self, allocation: Allocation) -> CompositeState:
        return CompositeState(tokens=allocation.tokens((1, 4)), total=allocation.tokens((1, 4)))


class TwoCachesSpec(SummedSpec):
    """Attention with two states that grow."""

    name: Literal["two-caches"] = "two-caches"  # type: ignore[assignment]

    def build(self, context: BuildContext) -> SoftmaxAttention:
        return TwoCaches(context, 1)


def model_with(attention: Any) -> GPT:
    return GPT({"d_model": 16, "n_layers": 2, "context_length": 16, "attention": attention}, 7)


@pytest.mark.parametrize("sums", [1, 2])
def test_attention_with_a_recurrence_is_written(sums: int) -> None:
    checks = ["written-equals-built", "cached-equals-full"]
    for result in run_checks(SummedSpec(sums=sums), only=checks):
        assert (result.outcome, result.message) == ("passed", ""), result.check.name


def test_two_states_that_grow_are_refused() -> None:
    with pytest.raises(NotWrittenError, match=r"grows with them, in a form of its own"):
        source_of(model_with(TwoCachesSpec()))


def test_several_states_are_refused_for_transformers() -> None:
    model = model_with(SummedSpec())
    with pytest.raises(NotWrittenError, match=r"Summed cannot be written for transformers: a module keeps several states"):
        write_code(model.spec, 7, name="summed", parameters=0)
