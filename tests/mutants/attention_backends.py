"""Attentions that disagree with their declarations or with an attention backend."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward
from tests.mutants.attention import Wrong


class FeaturesUndeclared(Wrong):
    """Omit the position's terms from the declared features."""

    name: Literal["features-undeclared"] = "features-undeclared"
    caught_by = "score-features"

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures()


class EagerOnly(Wrong):
    """Scale queries in the eager backend only."""

    class Runtime(GroupedQueryAttention):
        def score(
            self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSV: Tensor, forward: Forward, offset: int | Tensor, *terms: Tensor
        ) -> Tensor:
            eager = self.backend_name == "eager"
            return super().score(q_BHTD * 2 if eager else q_BHTD, k_BKSD, v_BKSV, forward, offset, *terms)

    name: Literal["eager-only"] = "eager-only"
    runtime = Runtime
    caught_by = "backends-agree"
    also: ClassVar[tuple[str, ...]] = ()


class DropsRotatedKeys(Wrong):
    """Rotate queries, but not keys."""

    class Runtime(GroupedQueryAttention):
        def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
            rotated, _ = super().rotate(q_BHTD, k_BKTD, forward)
            return rotated, k_BKTD

    name: Literal["drops-rotated-keys"] = "drops-rotated-keys"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "bias", "content_bias", "value_bias"})
    runtime = Runtime
    caught_by = "distance-only"


class CachesNarrowKeys(Wrong):
    """Accept positions that widen, but cache keys of the head size."""

    class Runtime(GroupedQueryAttention):
        @property
        def cached_shapes(self) -> tuple[tuple[int, int], ...]:
            return (self.heads.n_kv_heads, self.heads.d_head), (self.heads.n_kv_heads, self.d_value)

    name: Literal["caches-narrow-keys"] = "caches-narrow-keys"
    runtime = Runtime
    caught_by = "takes-wider-queries"


class AddsUndeclared(Wrong):
    """Pass a score term that neither the spec nor the module declares."""

    class Runtime(GroupedQueryAttention):
        def score(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSV: Tensor, forward: Forward, offset: int | Tensor) -> Tensor:  # type: ignore[override]
            added = torch.zeros(1, 1, q_BHTD.shape[2], k_BKSD.shape[2], dtype=q_BHTD.dtype)
            return super().score(q_BHTD, k_BKSD, v_BKSV, forward, offset, added)

    name: Literal["adds-undeclared"] = "adds-undeclared"
    runtime = Runtime
    caught_by = "backends-agree"
    also = ("*",)
