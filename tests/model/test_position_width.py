"""A position that returns queries of another width than its spec declares is named."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.position import Position


class Doubling(Position):
    def prepare(self, positions: Tensor) -> None:
        return None

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        return torch.cat((q_BHTD, q_BHTD), -1), torch.cat((k_BKTD, k_BKTD), -1)


class DoublingSpec(PositionSpec):
    """Double the width of queries and keys."""

    name: Literal["doubling"] = "doubling"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width"})
    factor: int = 2

    def rotated_width(self, d_head: int) -> int:
        return self.factor * d_head

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        return Doubling()


def model(factor: int) -> gptkit.GPT:
    attention = {"name": "multi-head", "n_heads": 2}
    layout = {"d_model": 32, "n_layers": 2, "context_length": 32, "attention": attention}
    return gptkit.GPT({**layout, "position": DoublingSpec(factor=factor)}, 50, seed=0).eval()


@pytest.mark.parametrize("factor", [1, 3])
def test_undeclared_width_names_the_position(factor: int) -> None:
    with pytest.raises(GptkitError, match=rf"position 'doubling' returns queries of 32 features .* declares {16 * factor}"):
        model(factor)(torch.zeros(1, 5, dtype=torch.long))


def test_declared_width_is_computed_with_and_without_a_cache() -> None:
    wide, ids_BT = model(2), torch.arange(5)[None]
    cache = wide.new_cache(1)
    steps = [wide(ids_BT[:, at : at + 1], cache=cache).logits for at in range(5)]
    torch.testing.assert_close(torch.cat(steps, 1), wide(ids_BT).logits)
