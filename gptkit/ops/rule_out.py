"""Exclusion of tokens from a distribution.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["rule_out"]


def rule_out(logits_BV: Tensor, remove_BV: Tensor) -> Tensor:
    """Return the logits with -inf where `remove_BV` is true; a row in which all tokens would be excluded is unchanged."""
    left_BV = logits_BV.masked_fill(remove_BV, -math.inf)
    empty_B1 = left_BV.amax(dim=-1, keepdim=True) == -math.inf
    return logits_BV.where(empty_B1, left_BV)
