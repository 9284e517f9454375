"""Reasons why a model cannot be traced, from what torch says."""

from __future__ import annotations

import pytest
from torch import nn

from gptkit.interop.programs.operators import reason


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ("\x1b[96mFailed\x1b[0m to run \x1b[1;31mdecompositions\x1b[0m\n\nmore", "Failed to run decompositions"),
        ("Constraints violated\n  - Not all values of n", "Constraints violated Not all values of n"),
        ("", "ValueError"),
        ("x" * 400, "x" * 297 + "\u2026"),
    ],
)
def test_reason_is_one_line_without_colors(raised: str, expected: str) -> None:
    assert reason(ValueError(raised), nn.Identity()) == expected
