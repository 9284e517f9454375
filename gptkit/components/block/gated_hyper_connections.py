"""Block with several residual streams, which its branches read through gates of each feature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import Problem
from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import stacking_problem
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["GatedHyperConnectionsSpec"]


class GatedHyperConnectionsSpec(BlockSpec):
    """Hyper-connections with a gate for each feature of each stream, and streams that are not mixed (Qwen 4 Exp).

    Formula:
        for each branch, attention and then feedforward, with streams H (N, d_model), c_n = norm_n(H_n), C = vec(c):
        h = mean over n of g_n ⊙ c_n,  g = σ(W_up silu(W_down C / N)),  q = write_scale · σ(W_q C / N)
        H ← H + q ⊗ dropout(branch(h))
        output of the last layer: such an h, by weights of its own; of other layers the mean of the streams

    Shapes:
        (B, T, d_model) → (B, T, d_model); g (N, d_model) and q (N), for each token; norms (N, d_model),
        W_down (rank, N · d_model), W_up (N · d_model, rank), W_q (N, N · d_model)

    Paper:
        https://arxiv.org/abs/2409.19606

    Notes:
        The paper, hyper-connections, reads and mixes the streams by one weight each; gates of features are those of Qwen 4
        Exp (its "gated residual", with 4 streams and rank 320). Each stream has weights of the layer's norm of its own, and
        the output of the last layer is normalized by them, so that the model has no final norm. The streams of the first
        block are copies of its input. A block carries its streams to the next one (`Forward.carry`).
    """

    formula: ClassVar[str] = r"""
        g = \sigma(W_{\text{up}} \operatorname{silu}(W_{\text{down}} C / N)) \qquad C = [\operatorname{norm}_n(H_n)]_n
        h = \frac{1}{N} \sum_n g_n \odot C_n \qquad q = 2\,\sigma(W_q C / N)
        H \leftarrow H + q \otimes \operatorname{branch}(h)
    """

    name: Literal["gated-hyper-connections"] = "gated-hyper-connections"
    streams: int = Field(4, ge=1, description="N: number of residual streams.")
    rank: int = Field(64, ge=1, description="Width of the hidden vector that the gates are computed from.")
    write_scale: float = Field(2.0, gt=0, description="Largest weight with which a stream receives a branch's output.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of each branch's output that is dropped in training.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"rank": 6},
        {"streams": 2, "rank": 5, "write_scale": 1.5, "dropout": 0.1},
    )

    @property
    def final_norm(self) -> bool:
        return False

    @property
    def wiring(self) -> tuple[Step, ...]:
        read, write = "norms and gates of the streams", "learned addition to the streams"
        return tuple(Step(((read, branch, write),)) for branch in ("attention", "feedforward"))

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        reason = stacking_problem(context.parts.norm)
        if reason is not None:
            yield Problem((), f"{reason} over streams; choose another")

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.gated_hyper_connections import GatedHyperConnections

        return GatedHyperConnections(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.gated_hyper_connections import gated_hyper_connections

        return gated_hyper_connections(self, context)
