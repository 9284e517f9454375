"""Block `manifold-hyper-connections`.

Shapes: B batch, T tokens, E model width, N streams, M numbers that mix the streams for one branch: 2 N + N².
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.ops.rms_norm import rms_norm

__all__ = [
    "ManifoldHyperConnections",
    "ManifoldHyperConnectionsSpec",
    "StreamCollapse",
    "StreamMixing",
    "sinkhorn",
    "write_streams",
]


class ManifoldHyperConnectionsSpec(BlockSpec):
    """Hyper-connections that mix the streams by doubly stochastic matrices (mHC, DeepSeek-V4).

    Formula:
        for each branch, attention(norm(·)) and then feedforward(norm(·)), with streams H (N, d_model), c = rms(vec(H)):
        p = σ(s_p W_p c + b_p) + ε,  q = 2 σ(s_q W_q c + b_q),  R = sinkhorn(softmax(s_R W_R c + b_R) + ε)
        H ← Rᵀ H + q ⊗ dropout(branch(pᵀ H))
        sinkhorn: columns, then `iterations` − 1 times rows and columns, are divided by their sum + ε
        output of the last layer: (σ(s W c + b) + ε)ᵀ H; of other layers the mean of the streams

    Shapes:
        (B, T, d_model) → (B, T, d_model); p and q (N), R (N, N), all for each token

    Paper:
        https://arxiv.org/abs/2512.24880

    Notes:
        Rows and columns of R sum to 1, so that a product of many R neither grows nor vanishes, unlike that of the matrices
        of `hyper-connections`. The streams of the first block are copies of its input. A block carries its streams to the
        next one (`Forward.carry`) under the key `("manifold-hyper-connections", streams)`. The initial W are drawn like
        projections, b is 0, and s is `gate`: 1 as in DeepSeek-V4; the paper's models begin with 0.01. A training step of 8
        layers of width 256 on one CPU thread takes 1.53 times as long as with `pre-norm` (`hyper-connections`: 1.25).
    """

    name: Literal["manifold-hyper-connections"] = "manifold-hyper-connections"
    streams: int = Field(4, ge=1, description="N: number of residual streams.")
    iterations: int = Field(20, ge=1, description="Iterations of Sinkhorn's algorithm.")
    gate: float = Field(1.0, description="Initial value of s, the factor of the part that depends on the token.")
    eps: float = Field(1e-6, gt=0, description="ε in p, R and the sums of Sinkhorn's algorithm.")
    norm_eps: float = Field(1e-6, gt=0, description="Added to the mean square in rms.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of each branch's output that is dropped in training.")
    examples = ({}, {"streams": 2, "iterations": 3, "gate": 0.1})

    @property
    def wiring(self) -> tuple[Step, ...]:
        read, write = "learned mixture of the streams", "learned addition to the streams"
        return tuple(Step(((read, "norm", branch, write),)) for branch in ("attention", "feedforward"))

    def build(self, context: BuildContext) -> Block:
        return ManifoldHyperConnections(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit_research.written.manifold_hyper_connections import manifold_hyper_connections

        return manifold_hyper_connections(self, context)


class ManifoldHyperConnections(Block):
    """The runtime part of `ManifoldHyperConnectionsSpec`. `collapse` is None in layers that another one follows."""

    def __init__(self, spec: ManifoldHyperConnectionsSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.streams = spec.streams
        self.key = ("manifold-hyper-connections", spec.streams)
        self.carries = (self.key,)
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.attention_mixing = StreamMixing(spec, context.d_model)
        self.feedforward_mixing = StreamMixing(spec, context.d_model)
        self.collapse = StreamCollapse(spec, context.d_model) if parts.index >= context.n_layers - 1 else None
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        streams_BTNE: Tensor | None = forward.carried(self, self.key)
        if streams_BTNE is None:  # the first block, or one after a block of another kind
            streams_BTNE = x_BTE[:, :, None].expand(-1, -1, self.streams, -1)
        h_BTE, write_BTN, mix_BTNN = self.attention_mixing(streams_BTNE)
        branch_BTE = self.dropout(self.attention(self.attention_norm(h_BTE), forward))
        streams_BTNE = write_streams(streams_BTNE, branch_BTE, write_BTN, mix_BTNN)
        h_BTE, write_BTN, mix_BTNN = self.feedforward_mixing(streams_BTNE)
        branch_BTE = self.dropout(self.feedforward(self.feedforward_norm(h_BTE), forward))
        streams_BTNE = write_streams(streams_BTNE, branch_BTE, write_BTN, mix_BTNN)
        forward.carry(self, self.key, streams_BTNE)
        y_BTE: Tensor = streams_BTNE.mean(dim=2) if self.collapse is None else self.collapse(streams_BTNE)
        return y_BTE


class StreamMixing(nn.Module):
    """Weights by which one branch reads, mixes and writes the streams."""

    def __init__(self, spec: ManifoldHyperConnectionsSpec, d_model: int) -> None:
        super().__init__()
        n = spec.streams
        self.split = [n, n, n * n]
        self.iterations, self.eps, self.norm_eps, self.gate = spec.iterations, spec.eps, spec.norm_eps, spec.gate
        self.weight = nn.Parameter(torch.zeros(sum(self.split), n * d_model))
        """Rows: W_p, W_q, and W_R row by row; columns: the streams one after another."""
        self.bias = nn.Parameter(torch.zeros(sum(self.split)))
        self.scale = nn.Parameter(torch.full((3,), spec.gate))

    def initial(self) -> dict[str, Initial]:
        return {
            "weight": "weight",
            "bias": "zeros",
            "scale": lambda shape, generator: torch.full(shape, self.gate),
        }

    def forward(self, streams_BTNE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the branch's input (B, T, E), the weights of its output (B, T, N), and the mixing matrix (B, T, N, N)."""
        mixed_BTM = _projected(streams_BTNE, self.weight, self.norm_eps)
        scales = self.scale.to(mixed_BTM.dtype).unbind()
        parts = zip(mixed_BTM.split(self.split, dim=-1), scales, self.bias.split(self.split), strict=True)
        read_BTN, write_BTN, mix_BTX = (part * scale + bias for part, scale, bias in parts)
        h_BTE = _collapsed(streams_BTNE, read_BTN.sigmoid() + self.eps)
        mix_BTNN = mix_BTX.unflatten(-1, (self.split[0], self.split[0])).softmax(dim=-1) + self.eps
        return h_BTE, 2 * write_BTN.sigmoid(), sinkhorn(mix_BTNN, self.iterations, self.eps)


class StreamCollapse(nn.Module):
    """Weights by which the output of the last layer reads the streams."""

    def __init__(self, spec: ManifoldHyperConnectionsSpec, d_model: int) -> None:
        super().__init__()
        n = spec.streams
        self.eps, self.norm_eps, self.gate = spec.eps, spec.norm_eps, spec.gate
        self.weight = nn.Parameter(torch.zeros(n, n * d_model))
        self.bias = nn.Parameter(torch.zeros(n))
        self.scale = nn.Parameter(torch.full((1,), spec.gate))

    def initial(self) -> dict[str, Initial]:
        return {
            "weight": "weight",
            "bias": "zeros",
            "scale": lambda shape, generator: torch.full(shape, self.gate),
        }

    def forward(self, streams_BTNE: Tensor) -> Tensor:
        read_BTN = _projected(streams_BTNE, self.weight, self.norm_eps) * self.scale + self.bias
        return _collapsed(streams_BTNE, read_BTN.sigmoid() + self.eps)


def sinkhorn(matrix: Tensor, iterations: int, eps: float) -> Tensor:
    """Return positive matrices (…, N, N) with rows and columns scaled in turn, columns first and last, to sum up to 1."""
    matrix = matrix / (matrix.sum(dim=-2, keepdim=True) + eps)
    for _ in range(iterations - 1):
        matrix = matrix / (matrix.sum(dim=-1, keepdim=True) + eps)
        matrix = matrix / (matrix.sum(dim=-2, keepdim=True) + eps)
    return matrix


def _projected(streams_BTNE: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return W · rms(vec(streams)), in fp32 or wider."""
    wide = torch.promote_types(streams_BTNE.dtype, torch.float32)
    with torch.autocast("cpu" if streams_BTNE.is_meta else streams_BTNE.device.type, enabled=False):
        return F.linear(rms_norm(streams_BTNE.flatten(2).to(wide), None, eps), weight.to(wide))


def _collapsed(streams_BTNE: Tensor, read_BTN: Tensor) -> Tensor:
    """Return the sum of the streams with these weights, (B, T, E), in the dtype of the streams."""
    return (read_BTN[..., None] * streams_BTNE).sum(dim=2).to(streams_BTNE.dtype)


def write_streams(streams_BTNE: Tensor, branch_BTE: Tensor, write_BTN: Tensor, mix_BTNN: Tensor) -> Tensor:
    """Return the mixed streams with the output of a branch, in the dtype of the streams."""
    dtype = streams_BTNE.dtype
    # Not in autocast's dtype, since the streams are the residual stream.
    with torch.autocast("cpu" if streams_BTNE.is_meta else streams_BTNE.device.type, enabled=False):
        mixed_BTNE = mix_BTNN.to(dtype).transpose(-2, -1) @ streams_BTNE
    return torch.addcmul(mixed_BTNE, write_BTN.to(dtype)[..., None], branch_BTE[:, :, None].to(dtype))
