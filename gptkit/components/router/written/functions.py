"""Functions of the scores of experts, in code and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptkit.ops.routing import ExpertScore

__all__ = ["FUNCTIONS", "SHORT"]

FUNCTIONS: Mapping[ExpertScore, str] = {
    "softmax": "logits_NX.softmax(dim=-1)",
    "sigmoid": "logits_NX.sigmoid()",
    "sqrt-softplus": "F.softplus(logits_NX).sqrt()",
}
"""Expressions of the scores."""
SHORT = {"sqrt-softplus": "√softplus"}
"""Names of functions in comments, where they differ."""
