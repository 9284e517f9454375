"""Messages of the check of written files."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from gptkit.core.component import component
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.nn.attention.base import Attention
from gptkit.nn.block import Block
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.testing import run_checks


class Summing(Attention):
    """Sum of the vectors so far, which reads the state before the first update."""

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        if forward.valid_BT is not None:
            x_BTE = x_BTE.masked_fill(~forward.valid_BT[..., None], 0)
        state = forward.state(self)
        first_BE = torch.zeros_like(x_BTE[:, 0])
        if state is not None:
            first_BE = state.tensors[0]
        sums_BTE = first_BE[:, None] + x_BTE.cumsum(1)
        if state is not None:
            state.update(x_BTE.shape[1], sums_BTE[:, -1])
        return sums_BTE

    def new_state(self, allocation: Allocation) -> RecurrentState:
        return allocation.recurrent(((32,), allocation.dtype))


class SummingSpec(AttentionSpec):
    """Sum of the vectors of earlier tokens, without weights."""

    name: Literal["summing"] = "summing"
    accepts: ClassVar[frozenset[str]] = frozenset()

    def build(self, context: BuildContext) -> Attention:
        return Summing()


def test_error_in_a_written_file_names_the_line_and_its_source() -> None:
    (result,) = run_checks(SummingSpec(), only=["written-equals-built"])
    lines, first = inspect.getsourcelines(Summing)
    number = first + next(at for at, line in enumerate(lines) if "state.tensors[0]" in line)
    assert result.outcome == "failed"
    assert "the written file fails: TypeError: 'NoneType' object is not subscriptable, in Summing." in result.message
    assert "of the written file: `first_BE = state.tensors[0]`. The built model computes it" in result.message
    assert f"(tests.testing.test_written, line {number}), but" in result.message
    assert result.message.endswith("the tensors of a recurrent state, for example, are None before the first update")


class Parts(Block):
    """Base of blocks that call their parts in a way of their own."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.attention = context.layer.attention.build(context)
        self.feedforward = context.layer.feedforward.build(context)
        self.norm = context.layer.norm.build(context, dim=context.d_model)


class ByVariable(Parts):
    """Block with its attention in a variable."""

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        attention = self.attention
        return x_BTE + attention(self.norm(x_BTE), forward)


class ByPair(Parts):
    """Block with its parts in two variables."""

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        norm, attention = self.norm, self.attention
        return x_BTE + attention(norm(x_BTE), forward)


class ByLoop(Parts):
    """Block that calls its parts in a loop."""

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        for part in (self.attention, self.feedforward):
            x_BTE = x_BTE + part(self.norm(x_BTE), forward)
        return x_BTE


class ByArgument(Parts):
    """Block that passes its attention to a method."""

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        return self.applied(self.attention, x_BTE, forward)

    def applied(self, part: Any, x_BTE: Tensor, forward: Forward) -> Tensor:
        return x_BTE + part(self.norm(x_BTE), forward)


class NormByVariable(Parts):
    """Block with its norm in a variable, and parts that are compared."""

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        norm = self.norm
        if self.feedforward is not None:
            x_BTE = x_BTE + self.attention(norm(x_BTE), forward)
        return x_BTE


class ActivationByVariable(FeedForward):
    """Feed-forward with its activation in a variable."""

    def __init__(self, activation: Any) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        activation = self.activation
        return activation(x_BTE)


class PartsSpec(BlockSpec):
    """Block of some class."""

    name: Literal["parts"] = "parts"
    of: ClassVar[type[Parts]]

    def build(self, context: BuildContext) -> Block:
        return self.of(context)


class ActivationSpecByVariable(FeedForwardSpec):
    """Feed-forward of an activation."""

    name: Literal["activation-only"] = "activation-only"
    activation: ActivationSpec = component("gelu", description="The activation.")

    def build(self, context: BuildContext) -> FeedForward:
        return ActivationByVariable(self.activation.build(context))


@pytest.mark.parametrize("block", [ByVariable, ByPair, ByLoop, ByArgument])
def test_parts_under_another_name_are_refused_with_the_remedy(block: type[Parts], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartsSpec, "of", block, raising=False)
    (result,) = run_checks(PartsSpec(), only=["written-equals-built"])
    assert result.outcome == "skipped"
    assert "uses the attention self.attention as a value" in result.message
    assert result.message.endswith("call it as self.attention(…)")


def test_activation_under_another_name_is_refused() -> None:
    (result,) = run_checks(ActivationSpecByVariable(), only=["written-equals-built"])
    assert result.outcome == "skipped"
    assert "call it as self.activation(…)" in result.message


def test_norm_in_a_variable_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartsSpec, "of", NormByVariable, raising=False)
    (result,) = run_checks(PartsSpec(), only=["written-equals-built"])
    assert result.outcome == "passed", result.message
