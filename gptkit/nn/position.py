"""The runtime contract of kind `position`.

Shapes: B batch, H heads, T queries, S keys, D head size, E model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec

__all__ = ["Position", "at", "build_absolute", "build_position"]


class Position(nn.Module):
    """The runtime part of a position. A position overrides the hooks that it uses; the others have no effect.

    `positions` are (T,) if all rows have the same, else (B, T); key positions are negative for padding.
    """

    def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
        """Absolute: return the token embeddings with positions added (or changed otherwise)."""
        return x_BTE

    def prepare(self, positions: Tensor) -> Any:
        """Return what `rotate` needs of this call's positions, such as sines and cosines. Called once for all layers."""
        return None

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        """Relative: return this call's queries and keys, rotated before their dot product. K is n_heads or n_kv_heads.

        The width of the result is the spec's `rotated_width`.
        """
        return q_BHTD, k_BKTD

    def scale_unrotated(self, q_BHTN: Tensor, prepared: Any) -> Tensor:
        """Relative: return features of queries that an attention does not rotate, scaled as `rotate` scales queries."""
        return q_BHTN

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """Relative: return a term that is added to the scaled scores after a softcap, (1 or B, H, T, S).

        Computed once per call and shared by layers.
        """
        return None

    def score_mod(self, query_positions: Tensor, key_positions: Tensor) -> Callable[..., Tensor]:
        """Relative: return `bias` as a score function of flex attention, if the spec declares `score_function`.

        Returns:
            A function (score, row, head, query, key) -> score of 0-d tensors; the last four are indices.
        """
        raise NotImplementedError(f"{type(self).__name__} has no score function")

    def content_bias(self, q_BHTD: Tensor, k_BHSD: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """Relative: return a term that depends on queries or keys, added to the scaled scores before a softcap.

        Queries are already multiplied by the scale of the scores. Keys have n_heads heads. The term of query t and key s
        may depend on keys up to t only.

        Returns:
            (B, H, T, S).
        """
        return None

    def value_bias(self, weights_BHTS: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """Relative: return a term that is added to each head's output, (B, H, T, D), from the attention weights."""
        return None


def at(positions: Tensor, row: Tensor, index: Tensor) -> Tensor:
    """Return the position of a token in a score function; `positions` are (T,), or (B, T) if rows differ."""
    return positions[index] if positions.dim() == 1 else positions[row, index]


def build_position(context: BuildContext, heads: HeadShape) -> Position:
    """Return the module of the layer's relative position; without a relative part, one whose hooks have no effect.

    Raises:
        GptkitError: the spec declares a hook that it does not build, or that the module does not define.
    """
    spec = context.parts.position
    hooks = sorted(spec.uses - {"embed", "rotated_width"})
    if not hooks:
        return Position()
    if type(spec).build is PositionSpec.build:
        raise _undefined(spec, hooks[0], "uses", type(spec), "build")
    built = spec.build(context, heads=heads)
    _check_defined(spec, built, hooks)
    if spec.score_function:
        _check_defined(spec, built, ["score_mod"], "score_function")
    return built


def build_absolute(context: BuildContext) -> Position | None:
    """Return the module of the model's absolute position, whose `embed` an embedding applies; None without one.

    Raises:
        GptkitError: the spec declares `embed` and does not build it, or the module does not define it.
    """
    spec = context.position
    if spec is None or "embed" not in spec.uses:
        return None
    built = spec.build_embedding(context)
    if built is None:
        raise _undefined(spec, "embed", "uses", type(spec), "build_embedding")
    _check_defined(spec, built, ["embed"])
    return built


def _check_defined(spec: PositionSpec, built: Position, hooks: Sequence[str], attribute: str = "uses") -> None:
    for hook in hooks:
        if getattr(type(built), hook, None) in (None, getattr(Position, hook, None)):
            raise _undefined(spec, hook, attribute, type(built), hook)


def _undefined(spec: PositionSpec, hook: str, attribute: str, owner: type, method: str) -> GptkitError:
    return GptkitError(
        f"position {spec.name!r} declares {hook!r} (in {attribute!r}), but {owner.__name__} does not define {method}",
        hint=f"Define {owner.__name__}.{method}, or change {type(spec).__name__}.{attribute}.",
    )
