"""Runtime modules of block `manifold-hyper-connections`.

Shapes: B batch, T tokens, E model width, N streams, M numbers by which one branch uses the streams: 2 N + N², or 2 N.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.streams import StreamBlock
from gptkit.ops.rms_norm import rms_norm

if TYPE_CHECKING:
    from gptkit.components.block.manifold_hyper_connections import ManifoldHyperConnectionsSpec

__all__ = ["ManifoldHyperConnections", "StreamCollapse", "StreamMixing", "sinkhorn", "write_streams"]


class ManifoldHyperConnections(StreamBlock):
    """Runtime part of `ManifoldHyperConnectionsSpec`. `collapse` is None in layers that another one follows."""

    def __init__(self, spec: ManifoldHyperConnectionsSpec, context: BuildContext) -> None:
        super().__init__("manifold-hyper-connections", spec.streams)
        parts = context.parts
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.attention_mixing = StreamMixing(spec, context.d_model)
        self.feedforward_mixing = StreamMixing(spec, context.d_model)
        self.collapse = StreamCollapse(spec, context.d_model) if parts.index >= context.n_layers - 1 else None
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()

    def run(self, streams_BTNE: Tensor, forward: Forward) -> Tensor:
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
        self.split = [n, n] if spec.mixing == "none" else [n, n, n * n]
        self.iterations, self.eps, self.norm_eps, self.gate = spec.iterations, spec.eps, spec.norm_eps, spec.gate
        self.read_bias, self.write_scale, self.write_eps = spec.read_bias, spec.write_scale, spec.write_eps
        self.weight = nn.Parameter(torch.zeros(sum(self.split), n * d_model))
        """Rows: W_p, W_q, and W_R row by row; columns: the streams one after another."""
        self.bias = nn.Parameter(torch.zeros(sum(self.split)))
        self.scale = nn.Parameter(torch.full((len(self.split),), spec.gate))

    def initial(self) -> dict[str, Initial]:
        return {"weight": "weight", "bias": self._initial_bias, "scale": _filled(self.gate)}

    def _initial_bias(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        bias = torch.zeros(shape)
        bias[: self.split[0]] = self.read_bias
        return bias

    def forward(self, streams_BTNE: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the branch's input (B, T, E), the weights of its output (B, T, N), and the mixing matrix.

        The matrix is (B, T, N, N), or None without mixing.
        """
        mixed_BTM = _projected(streams_BTNE, self.weight, self.norm_eps)
        scales = self.scale.to(mixed_BTM.dtype).unbind()
        parts = zip(
            mixed_BTM.split_with_sizes(self.split, dim=-1), scales, self.bias.split_with_sizes(self.split), strict=True
        )
        read_BTN, write_BTN, *mix = (part * scale + bias for part, scale, bias in parts)
        h_BTE = _collapsed(streams_BTNE, read_BTN.sigmoid() + self.eps)
        write_BTN = self.write_scale * write_BTN.sigmoid() + self.write_eps
        if not mix:
            return h_BTE, write_BTN, None
        mix_BTNN = torch.unflatten(mix[0], -1, (self.split[0], self.split[0])).softmax(dim=-1) + self.eps
        return h_BTE, write_BTN, sinkhorn(mix_BTNN, self.iterations, self.eps)


class StreamCollapse(nn.Module):
    """Weights by which the output of the last layer reads the streams."""

    def __init__(self, spec: ManifoldHyperConnectionsSpec, d_model: int) -> None:
        super().__init__()
        n = spec.streams
        self.eps, self.norm_eps, self.gate, self.read_bias = spec.eps, spec.norm_eps, spec.gate, spec.read_bias
        self.weight = nn.Parameter(torch.zeros(n, n * d_model))
        self.bias = nn.Parameter(torch.zeros(n))
        self.scale = nn.Parameter(torch.full((1,), spec.gate))

    def initial(self) -> dict[str, Initial]:
        return {"weight": "weight", "bias": _filled(self.read_bias), "scale": _filled(self.gate)}

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


def write_streams(streams_BTNE: Tensor, branch_BTE: Tensor, write_BTN: Tensor, mix_BTNN: Tensor | None) -> Tensor:
    """Return the mixed streams with the output of a branch, in the dtype of the streams."""
    dtype = streams_BTNE.dtype
    if mix_BTNN is not None:
        # Not in autocast's dtype, since the streams are the residual stream.
        with torch.autocast("cpu" if streams_BTNE.is_meta else streams_BTNE.device.type, enabled=False):
            streams_BTNE = mix_BTNN.to(dtype).transpose(-2, -1) @ streams_BTNE
    return torch.addcmul(streams_BTNE, write_BTN.to(dtype)[..., None], branch_BTE[:, :, None].to(dtype))


def _filled(value: float) -> Initial:
    return lambda shape, generator: torch.full(shape, value)
