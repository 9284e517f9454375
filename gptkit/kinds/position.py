"""Kind `position`.

Shapes: B batch, H heads, T queries, S keys, D head size, E model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from gptkit.nn.position import Position

__all__ = ["HeadShape", "PositionSpec"]


@dataclass(frozen=True)
class HeadShape:
    """The heads a relative position works on.

    Attributes:
        n_heads: query heads.
        n_kv_heads: key and value heads; each serves n_heads / n_kv_heads query heads.
        d_head: features of a head that the position may use (latent attention gives its rope slice only).
    """

    n_heads: int
    n_kv_heads: int
    d_head: int


class PositionSpec(Component):
    """Representation of the order of tokens.

    One contract with several parts, each doing nothing by default: `embed` for absolute positions (applied once, by the
    embedding), and for relative ones `rotate`, `bias`, `content_bias` and `value_bias` (applied by every attention that
    declares it takes them). A relative part may depend on the distance between two tokens only, unless
    `depends_on_place` or `depends_on_length` says otherwise.

    Declared capabilities:
        uses: which hooks the position has, of `embed`, `rotate`, `bias`, `content_bias`, `value_bias`, and `widen` where
            `rotate` gives queries and keys of another width. An attention that cannot take one of them refuses the position
            when the spec is loaded.
        score_function: `bias` also exists as a score function, `Position.score_mod`, for flex attention.
        rotated_width: a method, (d_head: int) -> int. Features of queries and keys after `rotate`.
        depends_on_place: a relative part also depends on the absolute positions of the two tokens (FIRE).
        depends_on_length: a property, bool: the result for a pair of tokens changes with the length of the text (dynamic
            scaling), and `changes_between` says when; the model then recomputes its cache.
        changes_between: a method, (old: int, new: int, context: BuildContext) -> bool.
        max_positions: a method, (context: BuildContext) -> int | None. Positions from this one on do not exist (a learned
            table); None without a limit.
    """

    kind: ClassVar[str] = "position"
    runtime: ClassVar[str] = "gptkit.nn.position:Position"
    uses: ClassVar[frozenset[str]] = frozenset()
    score_function: ClassVar[bool] = False
    depends_on_place: ClassVar[bool] = False

    @property
    def depends_on_length(self) -> bool:
        """Whether the result for a pair of tokens changes with the length of the text."""
        return False

    def changes_between(self, old: int, new: int, context: BuildContext) -> bool:
        """Whether a text that grows from `old` to `new` tokens changes what its earlier tokens gave."""
        return False

    def max_positions(self, context: BuildContext) -> int | None:
        """How many positions there are, from 0 on; None without a limit."""
        return None

    def head_problems(self, heads: HeadShape) -> Iterator[str]:
        """Why these heads cannot carry the position, as sentences with the remedy; none by default."""
        yield from ()

    def rotated_width(self, d_head: int) -> int:
        """Features of queries and keys after `rotate`; d_head unless `uses` names `widen`."""
        return d_head

    def build_embedding(self, context: BuildContext) -> Position | None:
        """The module whose `embed` the embedding applies; None where `uses` has no `embed`."""
        return None

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        """The module whose relative parts the attention applies; called only where `uses` names one of them.

        Layers whose spec and heads are equal may share one: use ``context.share``.
        """
        raise NotImplementedError(f"position {self.name!r} has no relative part: its `uses` are {sorted(self.uses)}")
