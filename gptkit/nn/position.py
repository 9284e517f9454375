"""The runtime contract of kind `position`.

Shapes: B batch, H heads, T queries, S keys, D head size, E model width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape

__all__ = ["Position", "at", "build_position"]


class Position(nn.Module):
    """The runtime part of a position: hooks, each doing nothing by default. A position overrides those it uses.

    `positions` are (T,) where all rows agree or (B, T); key positions are negative for padding.
    """

    def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
        """Absolute: add to (or change) the token embeddings."""
        return x_BTE

    def prepare(self, positions: Tensor) -> Any:
        """Whatever `rotate` needs of this call's positions (sines and cosines, say). Once a call, shared by layers."""
        return None

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        """Relative: rotate this call's queries and keys before their dot product. K is n_heads or n_kv_heads.

        Their width becomes what the spec's `rotated_width` says.
        """
        return q_BHTD, k_BKTD

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """Relative: a term added to the scaled scores after a softcap, (1 or B, H, T, S).

        Computed once a call and shared by layers.
        """
        return None

    def score_mod(self, query_positions: Tensor, key_positions: Tensor) -> Callable[..., Tensor]:
        """Relative: `bias` as a score function of flex attention, where the spec declares `score_function`.

        Returns:
            A function (score, row, head, query, key) -> score of 0-d tensors, the last four being indices.
        """
        raise NotImplementedError(f"{type(self).__name__} has no score function")

    def content_bias(self, q_BHTD: Tensor, k_BHSD: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """Relative: a term that depends on queries or keys too, added to the scaled scores before a softcap, (B, H, T, S).

        Queries come already multiplied by the score scale. Keys have n_heads heads. A term for query t and key s may
        read keys at or before t only.
        """
        return None

    def value_bias(self, weights_BHTS: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """Relative: a term added to each head's output, (B, H, T, D), from the attention weights."""
        return None


def at(positions: Tensor, row: Tensor, index: Tensor) -> Tensor:
    """The position of a token in a score function: `positions` are (T,), or (B, T) where rows differ."""
    return positions[index] if positions.dim() == 1 else positions[row, index]


def build_position(context: BuildContext, heads: HeadShape) -> Position:
    """The module of the layer's relative position, whose hooks do nothing where the position has no relative part.

    Raises:
        GptkitError: the module does not define a hook that the spec declares.
    """
    spec = context.parts.position
    if not spec.uses - {"embed"}:
        return Position()
    built = spec.build(context, heads=heads)
    declared = [(hook, "uses") for hook in sorted(spec.uses - {"embed", "widen"})]
    if spec.score_function:
        declared.append(("score_mod", "score_function"))
    for hook, attribute in declared:
        if getattr(type(built), hook, None) in (None, getattr(Position, hook, None)):
            raise GptkitError(
                f"position {spec.name!r} declares {hook!r} (in {attribute!r}), which its module {type(built).__name__} does "
                "not define",
                hint=f"Define {type(built).__name__}.{hook}, or change {type(spec).__name__}.{attribute}.",
            )
    return built
