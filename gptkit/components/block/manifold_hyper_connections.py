"""Block with several residual streams, which its branches read, mix and write by weights that depend on the token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["ManifoldHyperConnectionsSpec"]


class ManifoldHyperConnectionsSpec(BlockSpec):
    """Hyper-connections that mix the streams by doubly stochastic matrices (mHC, DeepSeek-V4), or not at all (Hunyuan 4).

    Formula:
        for each branch, attention(norm(·)) and then feedforward(norm(·)), with streams H (N, d_model), c = rms(vec(H)):
        p = σ(s_p W_p c + b_p) + ε,  q = write_scale · σ(s_q W_q c + b_q) + write_eps
        R = sinkhorn(softmax(s_R W_R c + b_R) + ε)
        H ← Rᵀ H + q ⊗ dropout(branch(pᵀ H)), with `mixing: none` H ← H + q ⊗ dropout(branch(pᵀ H))
        sinkhorn: columns, then `iterations` − 1 times rows and columns, are divided by their sum + ε
        output of the last layer: (σ(s W c + b) + ε)ᵀ H; of other layers the mean of the streams

    Shapes:
        (B, T, d_model) → (B, T, d_model); p and q (N), R (N, N), all for each token

    Paper:
        https://arxiv.org/abs/2512.24880

    Notes:
        Rows and columns of R sum to 1, so that a product of many R neither grows nor vanishes, unlike that of the matrices
        of `hyper-connections` (gptkit-research). The streams of the first block are copies of its input. A block carries its
        streams to the next one (`Forward.carry`) under the key `("manifold-hyper-connections", streams)`. The initial W are
        drawn like projections, b is 0 (b_p and b: `read_bias`), and s is `gate`: 1 as in DeepSeek-V4; the paper's models
        begin with 0.01. A training step of 8 layers of width 256 on one CPU thread takes 1.53 times as long as with
        `pre-norm`.
    """

    formula: ClassVar[str] = r"""
        p = \sigma(s_p W_p c + b_p) \qquad q = 2\,\sigma(s_q W_q c + b_q)
        R = \operatorname{sinkhorn}(\operatorname{softmax}(s_R W_R c + b_R))
        H \leftarrow R^\top H + q \otimes \operatorname{branch}(p^\top H)
    """

    name: Literal["manifold-hyper-connections"] = "manifold-hyper-connections"
    streams: int = Field(4, ge=1, description="N: number of residual streams.")
    mixing: Literal["doubly-stochastic", "none"] = Field(
        "doubly-stochastic",
        description="How streams are mixed before a branch's output is added; `none`: each remains itself.",
    )
    iterations: int = Field(20, ge=1, description="Iterations of Sinkhorn's algorithm.")
    gate: float = Field(1.0, description="Initial value of s, the factor of the part that depends on the token.")
    read_bias: float = Field(0.0, description="Initial value of b_p and b (Hunyuan 4: −ln(streams − 1)).")
    write_scale: float = Field(2.0, gt=0, description="Largest weight with which a stream receives a branch's output.")
    write_eps: float = Field(0.0, ge=0, description="Added to that weight.")
    eps: float = Field(1e-6, gt=0, description="ε in p, R and the sums of Sinkhorn's algorithm.")
    norm_eps: float = Field(1e-6, gt=0, description="Added to the mean square in rms.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of each branch's output that is dropped in training.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"streams": 2, "iterations": 3, "gate": 0.1},
        {"streams": 3, "mixing": "none", "write_scale": 1.5, "write_eps": 1e-3, "read_bias": -0.7},
    )

    @property
    def wiring(self) -> tuple[Step, ...]:
        read, write = "learned mixture of the streams", "learned addition to the streams"
        return tuple(Step(((read, "norm", branch, write),)) for branch in ("attention", "feedforward"))

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.manifold_hyper_connections import ManifoldHyperConnections

        return ManifoldHyperConnections(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.manifold_hyper_connections import manifold_hyper_connections

        return manifold_hyper_connections(self, context)
