"""Templates of `shaw` and `t5-bias`, which have trained tables of distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Setting, WritingContext, Written, fill

if TYPE_CHECKING:
    from gptkit.components.position.shaw import ShawSpec
    from gptkit.components.position.t5_bias import T5BiasSpec

__all__ = ["shaw", "t5_bias"]

_SHAW = '''
class $class_name(nn.Module):
    """Relative position: a trained vector for each distance, added to keys$and_values."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.keys = nn.Embedding($MAX_DISTANCE + 1, $D_HEAD)
        #if values
        self.values = nn.Embedding($MAX_DISTANCE + 1, $D_HEAD)
        #end

    def distances(self, positions_T: Tensor, n_keys: int) -> Tensor:
        """Return the distance from each query back to each key, limited, (T, S)."""
        keys_S = torch.arange(n_keys, device=positions_T.device)
        return (positions_T[:, None] - keys_S).clamp(0, $MAX_DISTANCE)

    def score_term(self, q_BHTD: Tensor, positions_T: Tensor, n_keys: int) -> Tensor:
        """Return the products of queries and vectors of keys, (B, H, T, S)."""
        vectors_TSD = self.keys(self.distances(positions_T, n_keys))
        return torch.einsum("bhtd,tsd->bhts", q_BHTD, vectors_TSD)
    #if values

    def value_term(self, weights_BHTS: Tensor, positions_T: Tensor) -> Tensor:
        """Return the mean of the vectors of values, (B, H, T, D)."""
        vectors_TSD = self.values(self.distances(positions_T, weights_BHTS.shape[-1]))
        return torch.einsum("bhts,tsd->bhtd", weights_BHTS, vectors_TSD)
    #end
'''

_T5 = '''
class $class_name(nn.Module):
    """Relative position (T5): a trained term of the scores for each head and range of distances.

    Short distances have a range of their own; the ranges of longer ones grow with the distance.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        self.table = nn.Embedding($N_BUCKETS, $N_HEADS)

    def forward(self, positions_T: Tensor, n_keys: int) -> Tensor:
        """Return the term of the scores, (H, T, S)."""
        keys_S = torch.arange(n_keys, device=positions_T.device)
        distance_TS = (positions_T[:, None] - keys_S).clamp(min=0)
        exact = $N_BUCKETS // 2  # number of ranges with one distance
        growth = math.log($MAX_DISTANCE / exact)
        steps_TS = torch.log(distance_TS.clamp(min=1).float() / exact) / growth
        range_TS = exact + (steps_TS * ($N_BUCKETS - exact)).long()
        range_TS = range_TS.clamp(max=$N_BUCKETS - 1)
        range_TS = torch.where(distance_TS < exact, distance_TS, range_TS)
        return self.table(range_TS).movedim(-1, 0)
'''


def shaw(spec: ShawSpec, heads: HeadShape) -> Written:
    """Return the tables as a class."""
    calls = {"content": "self.position.score_term($q, positions_T, $n_keys)"}
    if spec.values:
        calls["values"] = "self.position.value_term($weights, positions_T)"
    settings = {
        "MAX_DISTANCE": Setting(spec.max_distance, "largest distance with a vector of its own"),
        "D_HEAD": Setting(heads.d_head, "features of a head"),
    }
    return Written(
        "RelativePosition",
        fill(_SHAW, values=spec.values, and_values=" and values" if spec.values else ""),
        settings=settings,
        calls=calls,
        section="position",
        fields=["max_distance", "values"],
    )


def t5_bias(spec: T5BiasSpec, context: WritingContext, heads: HeadShape) -> Written:
    """Return the table as a class."""
    if spec.shared:
        context.share(("written", "t5-bias"), lambda: True)
    return Written(
        "T5Bias",
        fill(_T5),
        settings={
            "N_BUCKETS": Setting(spec.n_buckets, "ranges of distances"),
            "MAX_DISTANCE": Setting(spec.max_distance, "distance at which the last range begins"),
            "N_HEADS": Setting(heads.n_heads, "heads of the queries"),
        },
        calls={"bias": "self.position(positions_T, $n_keys)"},
        section="position",
        fields=["n_buckets", "max_distance", "shared"],
    )
