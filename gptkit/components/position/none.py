"""Position `none`."""

from __future__ import annotations

from typing import ClassVar, Literal

from gptkit.kinds.position import PositionSpec

__all__ = ["NoPositionSpec"]


class NoPositionSpec(PositionSpec):
    """No position (NoPE): only the causal mask provides information about the order of tokens.

    Paper:
        https://arxiv.org/abs/2305.19466
    """

    formula: ClassVar[str] = r"\text{score}_{t,s} \leftarrow \text{score}_{t,s}"

    name: Literal["none"] = "none"
