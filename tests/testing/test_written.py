"""Messages of the check of written files."""

from __future__ import annotations

import inspect
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
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
