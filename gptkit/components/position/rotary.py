"""`rotary` relative positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import optional_component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.position.modules.rotary import RotaryPosition

__all__ = ["RotarySpec"]


class RotarySpec(PositionSpec):
    """Rotary position embedding (RoPE): rotate queries and keys by an angle proportional to their position.

    Formula:
        θ_i = base^(-2i / d_rotary)
        (a, b) ↦ (a cos tθ_i - b sin tθ_i, a sin tθ_i + b cos tθ_i) for every pair of features (a, b)
        reverse: by -tθ_i in place of tθ_i
        half: features i and i + d_rotary/2 are a pair; interleaved: features 2i and 2i + 1 are
        With `temperature` s: queries are also multiplied by 1 + s · ln(1 + ⌊t / temperature_interval⌋), t from 0
    Shapes:
        q (B, n_heads, T, d_head), k (B, n_kv_heads, S, d_head) -> the same
    Paper:
        https://arxiv.org/abs/2104.09864
    """

    formula: ClassVar[str] = r"""
        \theta_i = b^{-2i / d} \qquad b = \text{base} \qquad d = \text{rotated features}
        \begin{pmatrix} x_a \\
        x_b \end{pmatrix} \leftarrow \begin{pmatrix} \cos t\theta_i & -\sin t\theta_i \\
        \sin t\theta_i & \cos t\theta_i \end{pmatrix} \begin{pmatrix} x_a \\ x_b \end{pmatrix}
    """

    name: Literal["rotary"] = "rotary"
    only_with: ClassVar[Mapping[str, str]] = {"temperature_interval": "temperature"}
    uses: ClassVar[frozenset[str]] = frozenset({"rotate"})

    base: float = Field(
        10000.0, gt=1, description="Base of the frequencies; the slowest pair rotates about once in 2π · base tokens."
    )
    layout: Literal["half", "interleaved"] = Field("half", description="Which two features of a head form a pair.")
    fraction: float = Field(1.0, gt=0, le=1, description="Share of each head's features that are rotated, the first ones.")
    reverse: bool = Field(False, description="Rotate by the negative angle (nanochat).")
    scaling: RotaryScalingSpec | None = optional_component(description="Scaling of the frequencies for longer texts.")
    temperature: float = Field(
        0.0, ge=0, description="Growth of queries with the logarithm of their position (arXiv 2501.19399; Ministral 3)."
    )
    temperature_interval: int = Field(8192, ge=1, description="Tokens after which queries grow by a step.")

    @property
    def depends_on_position(self) -> bool:  # type: ignore[override]
        return self.temperature > 0

    @property
    def depends_on_length(self) -> bool:
        return self.scaling is not None and self.scaling.depends_on_length

    def changes_between(self, old: int, new: int, context: BuildContext) -> bool:
        return self.scaling is not None and self.scaling.changes_between(old, new, context)

    def d_rotary(self, d_head: int) -> int:
        """Return the number of rotated features of a head of `d_head`."""
        return int(d_head * self.fraction)

    def head_problems(self, heads: HeadShape) -> Iterator[str]:
        d_rotary = self.d_rotary(heads.d_head)
        if d_rotary % 2 or d_rotary == 0:
            share = "" if self.fraction == 1 else f"{self.fraction:g} of "
            yield (
                f"features are rotated in pairs, but {share}the head size {heads.d_head} gives {d_rotary}; "
                "choose n_heads, d_head or fraction so that it is even"
            )
        elif self.scaling is not None:
            yield from self.scaling.pair_problems(d_rotary)

    def build(self, context: BuildContext, *, heads: HeadShape) -> RotaryPosition:
        from gptkit.components.position.modules.rotary import RotaryPosition

        return context.share(("rotary", self, heads.d_head), lambda: RotaryPosition(self, context, heads.d_head))

    def written(self, context: WritingContext, *, heads: HeadShape | None) -> Written:
        from gptkit.components.position.written.rotary import rotary

        assert heads is not None
        return rotary(self, context, heads)
