"""Correct components that a stricter kit would reject."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest
from pydantic import Field
from torch import Tensor

from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.components.attention.multi_head import MultiHeadSpec
from gptkit.components.position.learned import LearnedSpec
from gptkit.components.position.modules.learned import LearnedPosition
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.testing import run_checks


class SigmoidAttention(GroupedQueryAttention):
    """Attention weights that are sigmoids of the scores, whose sum is not fixed."""

    def score(
        self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, forward: Forward, offset: int, *terms: Tensor | None
    ) -> Tensor:
        seen = forward.mask(offset, k_BKSD.shape[2], window=self.window).dense()
        weights_BHTS = (q_BHTD @ k_BKSD.mT * self.scale + 2).sigmoid() * seen
        forward.keep_weights(self.layer, weights_BHTS)
        return weights_BHTS @ v_BKSD


class SigmoidSpec(MultiHeadSpec):
    """Attention that weights every token by the sigmoid of its score."""

    name: Literal["sigmoid"] = "sigmoid"  # type: ignore[assignment]
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate"})

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made = super().build(context)
        made.__class__ = SigmoidAttention
        return made


class Tabled(LearnedSpec):
    """Position with a table of 1024 vectors, independent of the model's context."""

    name: Literal["tabled"] = "tabled"  # type: ignore[assignment]
    size: int = Field(1024, ge=1, description="Positions that the table has.")

    def build_embedding(self, context: BuildContext) -> LearnedPosition:
        return LearnedPosition(self, context)


def failed(spec: MultiHeadSpec | LearnedSpec, *checks: str) -> list[str]:
    results = run_checks(spec, only=checks)
    assert [result.check.name for result in results if result.outcome != "skipped"] == list(checks)
    return [f"{result.check.name}: {result.message}" for result in results if not result.ok]


def test_attention_weights_need_not_sum_to_one() -> None:
    spec = SigmoidSpec(n_heads=2, d_head=16)
    assert not failed(spec, "attention-weights")
    assert not failed(spec, "no-future-leak", "cached-equals-full")


def test_position_may_have_a_limit() -> None:
    assert not failed(Tabled(), "builds-on-meta", "reaches-the-end", "finite-far-out")


def test_position_with_a_low_limit_requires_an_example() -> None:
    (message,) = failed(Tabled(size=20), "output-shape")
    assert "has 20 positions (its max_positions), fewer than the context length 48" in message
    assert "Give `examples` whose sizes fit" in message


@pytest.mark.parametrize("size", [None, 48])
def test_built_in_learned_position_builds(size: int | None) -> None:
    assert not failed(LearnedSpec(size=size), "builds-on-meta", "finite-far-out")


class SinkAttention(SoftmaxAttention):
    """Attention with sinks whose own `initial` does not name them."""

    def __init__(self, spec: SinkSpec, context: BuildContext) -> None:
        heads = HeadShape(2, 2, context.d_model // 2)
        super().__init__(context, heads, scale=heads.d_head**-0.5, sinks=True)
        self.qkv = context.linear(context.d_model, 3 * context.d_model, bias=False)
        self.output = context.linear(context.d_model, context.d_model, bias=False)

    def initial(self) -> dict[str, Initial]:
        return {"output.weight": "output"}

    def project(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
        q_BHTD, k_BHTD, v_BHTD = self.qkv(x_BTE).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return q_BHTD, k_BHTD, v_BHTD

    def combine(self, out_BHTV: Tensor, x_BTE: Tensor) -> Tensor:
        y_BTE: Tensor = self.output(out_BHTV.transpose(1, 2).flatten(2))
        return y_BTE


class SinkSpec(AttentionSpec):
    """Attention with a learned logit of each head."""

    name: Literal["sink"] = "sink"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate"})

    def build(self, context: BuildContext) -> SinkAttention:
        return SinkAttention(self, context)


def test_base_class_initializes_its_sinks() -> None:
    results = run_checks(SinkSpec(), only=("same-seed-same-result", "cached-equals-full", "one-device", "long-texts"))
    assert [result.outcome for result in results] == ["passed"] * 4
