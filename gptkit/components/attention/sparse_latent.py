"""`sparse-latent` attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.attention.latent import LatentSpec
from gptkit.core.errors import Problem
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.sparse_latent import SparseLatentAttention

__all__ = ["SparseLatentSpec"]


class SparseLatentSpec(LatentSpec):
    """DeepSeek Sparse Attention (DSA): latent attention to the `top_k` keys that a small indexer chooses for each query.

    Formula:
        i_j = rotate(W_iq c_q)_j,  k = rotate(layernorm(W_ik x)),  w = W_iw x, with c_q the latent of the queries
        score(t, s) = Σ_j w_t,j · relu(i_t,j · k_s / √d_index) / √index_heads
        A query t attends to the top_k keys s ≤ t with the highest scores (of equal ones, the first), as in `latent`.
        In training: loss += index_loss · mean KL(p ‖ softmax(score over the chosen keys)) / n_layers, p the mean over heads
        of the attention weights, divided by its sum; the indexer has no other gradient, and its loss changes nothing else.
    Shapes:
        (B, T, d_model) -> (B, T, d_model); cache: kv_rank + d_rotary + d_index values per token
    Paper:
        https://arxiv.org/abs/2512.02556
    Notes:
        With `indexer: previous`, a layer has none, and attends to the keys that the last layer with an indexer chose
        (GLM-5). This implementation computes scores for all keys and excludes those not chosen: it defines the model
        exactly, and does not save time. The loss computes the attention weights once more; `index_loss: 0` omits it.
    """

    formula: ClassVar[str] = r"""
        i_j = \operatorname{rotate}(W_{iq} c_q)_j \qquad k = \operatorname{rotate}(\operatorname{norm}(W_{ik} x))
        I_{t,s} = \sum_j w_{t,j} \frac{\operatorname{relu}(i_{t,j} \cdot k_s)}{\sqrt{d\, n}}
        \text{chosen}(t) = \operatorname{topk}_{s \le t}(I_{t,s})
    """

    name: Literal["sparse-latent"] = "sparse-latent"  # type: ignore[assignment]
    # Without a rotation, the indexer's keys of equal tokens are equal, and rounding would choose among them.
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width"})

    top_k: int = Field(2048, ge=1, description="Number of keys that a query attends to.")
    index_heads: int = Field(64, ge=1, description="Number of the indexer's heads.")
    d_index: int = Field(
        128, ge=1, description="Features of the indexer's queries and keys; the first d_rotary are rotated."
    )
    index_layout: Literal["same", "half", "interleaved"] = Field(
        "same", description="Layout in which the indexer rotates; that of the position by default (DeepSeek V3.2: half)."
    )
    index_eps: float = Field(1e-6, gt=0, description="Added to the variance in the norm of the indexer's keys.")
    indexer: Literal["own", "previous"] = Field(
        "own", description="Whether the layer has an indexer, or uses the choice of the last layer that has one."
    )
    index_loss: float = Field(1.0, ge=0, description="Weight of the indexer's loss in training.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 2, "kv_rank": 10, "q_rank": 7, "d_nope": 6, "d_rotary": 4, "top_k": 14, "index_heads": 8, "d_index": 6},
        {"n_heads": 2, "kv_rank": 8, "d_rotary": 4, "top_k": 15, "index_heads": 9, "d_index": 4, "index_loss": 0.1},
    )

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        yield from super().problems(context)
        if self.d_index < self.d_rotary:
            yield Problem(("d_index",), f"should be at least d_rotary, {self.d_rotary}; raise it, or lower d_rotary")
        if self.index_layout != "same" and context.parts.position.name not in ("rotary", "none"):
            yield Problem(
                ("index_layout",), f"position {context.parts.position.name!r} has no layout; set index_layout: same"
            )

    def layer_problems(self, index: int, layers: Sequence[LayerParts]) -> Iterator[Problem]:
        earlier = (layer.attention for layer in layers if layer.index < index)
        owned = any(isinstance(each, SparseLatentSpec) and each.indexer == "own" for each in earlier)
        if self.indexer == "previous" and not owned:
            reason = "no earlier layer has an indexer" if index else "the first layer has no previous one"
            yield Problem(("indexer",), f"{reason}; set indexer: own")

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures.of(context.parts.position, sinks=self.sinks, dropout=self.dropout > 0, added_term=True)

    def build(self, context: BuildContext) -> SparseLatentAttention:
        from gptkit.components.attention.modules.sparse_latent import SparseLatentAttention

        return SparseLatentAttention(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.sparse_latent import sparse_latent

        return sparse_latent(self, context)
