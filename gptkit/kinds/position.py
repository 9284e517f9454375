"""Kind `position`.

Shapes: B batch, H heads, T queries, S keys, D head size, E model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.position import Position

__all__ = ["HeadShape", "PositionSpec"]


@dataclass(frozen=True)
class HeadShape:
    """Number and size of the heads that a relative position applies to.

    Attributes:
        n_heads: query heads.
        n_kv_heads: key and value heads; each serves n_heads / n_kv_heads query heads.
        d_head: features of a head that the position may use (for latent attention, the rotated part only).
    """

    n_heads: int
    n_kv_heads: int
    d_head: int


class PositionSpec(Component):
    """Position encoding: the representation of the order of tokens.

    The contract has several hooks without effect by default: `embed` for absolute positions (applied once, by the
    embedding), and `rotate`, `bias`, `content_bias` and `value_bias` for relative ones (applied by every attention that
    declares them in `accepts`). A relative hook depends on the distance between two tokens only, unless
    `depends_on_position` or `depends_on_length` is set.

    Declared capabilities:
        uses: the hooks that the position implements, of `embed`, `rotate`, `bias`, `content_bias` and `value_bias`; and
            `rotated_width` if `rotate` changes the width of queries and keys. An attention that does not accept one of them
            is rejected with this position when the spec is loaded.
        score_function: `bias` also exists as a score function, `Position.score_mod`, for flex attention.
        rotated_width: a method, (d_head: int) -> int. Features of queries and keys after `rotate`.
        depends_on_position: a relative part also depends on the absolute positions of the two tokens (FIRE).
        depends_on_length: a property, bool: the result for a pair of tokens changes with the length of the text (dynamic
            scaling). The model recomputes its cache where `changes_between` returns True.
        changes_between: a method, (old: int, new: int, context: BuildContext) -> bool.
        max_positions: a method, (context: BuildContext) -> int | None. The number of positions (of a learned table); None
            without a limit.
    """

    kind: ClassVar[str] = "position"
    runtime: ClassVar[str] = "gptkit.nn.position:Position"
    builds_module: ClassVar[bool] = True
    uses: ClassVar[frozenset[str]] = frozenset()
    score_function: ClassVar[bool] = False
    depends_on_position: ClassVar[bool] = False

    @property
    def depends_on_length(self) -> bool:
        """Whether the result for a pair of tokens changes with the length of the text."""
        return False

    def changes_between(self, old: int, new: int, context: BuildContext) -> bool:
        """Return whether the results of a text's earlier tokens change when it grows from `old` to `new` tokens."""
        return False

    def max_positions(self, context: BuildContext) -> int | None:
        """Return the number of positions; None without a limit."""
        return None

    def head_problems(self, heads: HeadShape) -> Iterator[str]:
        """Yield the reasons why the position does not support these heads, with the remedy; none by default."""
        yield from ()

    def rotated_width(self, d_head: int) -> int:
        """Return the number of features of queries and keys after `rotate`; if it is not d_head, `uses` must declare it."""
        return d_head

    def build_embedding(self, context: BuildContext) -> Position | None:
        """Return the module whose `embed` the embedding applies; None if `uses` does not contain `embed`."""
        return None

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        """Return the module whose relative hooks the attention applies; called only if `uses` contains one of them.

        Layers with equal specs and heads may share one module: use ``context.share``.
        """
        raise NotImplementedError(f"position {self.name!r} has no relative hook: its `uses` are {sorted(self.uses)}")

    def written(self, context: WritingContext, *, heads: HeadShape | None) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its call "embed" is the vectors of positions_T that are added to the embeddings, or "embedded" the embeddings $x with
        positions. Its calls "query" and "key" are the queries and keys for $x, or "both" the two for $q and $k, "unrotated"
        the queries' features without position (`latent`), "bias" a term of the scores, "content" one before their soft bound
        for scaled queries $q and keys $k, and "values" one of the heads' outputs for $weights; these may use $n_keys.

        Args:
            heads: the heads of the layer; None for the absolute position of the embedding.
        """
        return None
