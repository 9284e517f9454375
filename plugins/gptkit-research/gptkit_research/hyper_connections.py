"""Block `hyper-connections`.

Shapes: B batch, T tokens, E model width, N streams, M = N + 1 mixtures: the branch's input, then the new streams.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.parameters import ParameterOptions

__all__ = ["HyperConnection", "HyperConnections", "HyperConnectionsSpec"]


class HyperConnectionsSpec(BlockSpec):
    """Hyper-connections: several residual streams, with learned weights by which each branch reads from and writes to them.

    Formula:
        for each branch, attention(norm(·)) and then feedforward(norm(·)), with streams H (N, d_model):
        h = A_mᵀ H,  H ← A_rᵀ H + B ⊗ dropout(branch(h))
        [A_m A_r] = static + s_α tanh(norm(H) W_α),  B = static + s_β tanh(norm(H) W_β)

    Shapes:
        (B, T, d_model) → (B, T, d_model); A_m (N, 1), A_r (N, N), B (N)

    Paper:
        https://arxiv.org/abs/2409.19606

    Notes:
        The streams of the first block are copies of its input. Initially every branch reads one stream and writes to all,
        which equals a pre-norm block. A block carries its streams to the next one (`Forward.carry`) under the key
        `("hyper-connections", streams)`, and returns their sum, so that it can be combined with blocks of other kinds.
        The paper also scales the initial weights of output projections by the number of streams.
    """

    name: Literal["hyper-connections"] = "hyper-connections"
    streams: int = Field(4, ge=1, description="Number of residual streams; the paper's expansion rate.")
    dynamic: bool = Field(True, description="Add a part that depends on the token to the connections.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of each branch's output that is dropped in training.")
    examples = ({}, {"streams": 2, "dynamic": False})

    @property
    def wiring(self) -> tuple[Step, ...]:
        read, write = "learned mixture of the streams", "learned addition to the streams"
        return tuple(Step(((read, "norm", branch, write),)) for branch in ("attention", "feedforward"))

    def build(self, context: BuildContext) -> Block:
        return HyperConnections(self, context)


class HyperConnections(Block):
    """The runtime part of `HyperConnectionsSpec`."""

    def __init__(self, spec: HyperConnectionsSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.streams = spec.streams
        self.key = ("hyper-connections", spec.streams)
        self.carries = (self.key,)
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.attention_connection = HyperConnection(spec, context, 2 * parts.index)
        self.feedforward_connection = HyperConnection(spec, context, 2 * parts.index + 1)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        streams_BTNE: Tensor | None = forward.carried(self, self.key)
        if streams_BTNE is None:  # the first block, or one after a block of another kind
            streams_BTNE = x_BTE[:, :, None].expand(-1, -1, self.streams, -1)
        h_BTE, streams_BTNE, write_BTN = self.attention_connection(streams_BTNE)
        branch_BTE = self.dropout(self.attention(self.attention_norm(h_BTE), forward))
        streams_BTNE = streams_BTNE + write_BTN[..., None] * branch_BTE[:, :, None]
        h_BTE, streams_BTNE, write_BTN = self.feedforward_connection(streams_BTNE)
        branch_BTE = self.dropout(self.feedforward(self.feedforward_norm(h_BTE), forward))
        streams_BTNE = streams_BTNE + write_BTN[..., None] * branch_BTE[:, :, None]
        forward.carry(self, self.key, streams_BTNE)
        return streams_BTNE.sum(dim=2)


class HyperConnection(nn.Module):
    """Weights by which one branch reads and writes the streams.

    Args:
        index: index of the branch in the model; initially it reads the stream `index` modulo N.
    """

    def __init__(self, spec: HyperConnectionsSpec, context: BuildContext, index: int) -> None:
        super().__init__()
        n = spec.streams
        self.reads_first = index % n
        self.mix = nn.Parameter(torch.zeros(n, n + 1))
        """[A_m A_r], static part."""
        self.write = nn.Parameter(torch.ones(n))
        """B, static part."""
        self.dynamic = spec.dynamic
        if spec.dynamic:
            self.norm = context.parts.norm.build(context, dim=context.d_model)
            self.mix_by_token = nn.Linear(context.d_model, n + 1, bias=False)
            self.write_by_token = nn.Linear(context.d_model, 1, bias=False)
            self.mix_scale = nn.Parameter(torch.full((1,), 0.01))
            self.write_scale = nn.Parameter(torch.full((1,), 0.01))

    def initial(self) -> dict[str, Initial]:
        initial: dict[str, Initial] = {"mix": self._initial_mix, "write": "ones"}
        if self.dynamic:
            initial |= {"mix_by_token.weight": "zeros", "write_by_token.weight": "zeros"}
            initial |= {"mix_scale": _hundredth, "write_scale": _hundredth}
        return initial

    def parameter_options(self) -> dict[str, ParameterOptions]:
        # A table of factors of the streams, not a matrix between features.
        return {"mix": ParameterOptions(decay=False, hidden=False)}

    def _initial_mix(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        mix = torch.zeros(shape)
        mix[self.reads_first, 0] = 1
        mix[:, 1:] = torch.eye(shape[0])
        return mix

    def forward(self, streams_BTNE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the branch's input (B, T, E), the mixed streams (B, T, N, E), and the weights of its output (B, T, N)."""
        dtype = streams_BTNE.dtype
        mix: Tensor = self.mix
        write: Tensor = self.write.expand(*streams_BTNE.shape[:3])
        if self.dynamic:
            normed_BTNE = self.norm(streams_BTNE)
            mix = mix + self.mix_scale * torch.tanh(self.mix_by_token(normed_BTNE))
            write = write + self.write_scale * torch.tanh(self.write_by_token(normed_BTNE))[..., 0]
        mixed_BTME = mix.to(dtype).transpose(-2, -1) @ streams_BTNE
        return mixed_BTME[:, :, 0], mixed_BTME[:, :, 1:], write.to(dtype)


def _hundredth(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.full(shape, 0.01)
