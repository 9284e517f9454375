"""Shared code of samplers with a minimum probability. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["keep_above"]


def keep_above(logits_BV: Tensor, keep_BV: Tensor) -> Tensor:
    """Return the logits with -inf where `keep_BV` is false, except for each row's most likely tokens, which are kept."""
    highest_B1 = logits_BV.amax(dim=-1, keepdim=True)
    return logits_BV.masked_fill(~keep_BV & (logits_BV < highest_B1), -math.inf)
