"""Position `none`."""

from __future__ import annotations

from typing import Literal

from gptkit.kinds.position import PositionSpec

__all__ = ["NoPositionSpec"]


class NoPositionSpec(PositionSpec):
    """No position (NoPE): only the causal mask provides information about the order of tokens.

    Paper:
        https://arxiv.org/abs/2305.19466
    """

    name: Literal["none"] = "none"
