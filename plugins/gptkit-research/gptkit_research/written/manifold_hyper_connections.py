"""Template of block `manifold-hyper-connections`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Setting, WritingContext, Written, fill
from gptkit_research.written.parts import branch_parts, dropped

if TYPE_CHECKING:
    from gptkit_research.manifold_hyper_connections import ManifoldHyperConnectionsSpec

__all__ = ["manifold_hyper_connections"]

_PROJECTED = '''
def $class_name(streams_BTNE: Tensor, weight: Tensor$parameters) -> Tensor:
    """Project all streams of a token at once, after a norm: (B, T, N, E) to (B, T, rows of the weight)."""
    x_BTX = streams_BTNE.flatten(2)
    scale_BT1 = torch.rsqrt(x_BTX.square().mean(dim=-1, keepdim=True) + $STREAM_NORM_EPS)
    return F.linear(x_BTX * scale_BT1, weight)
'''

_MIXING = '''
class $class_name(nn.Module):
    """Weights by which one branch reads, writes and mixes the residual streams of each token."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.sizes = [$N_STREAMS, $N_STREAMS, $N_STREAMS**2]
        self.weight = nn.Parameter(torch.empty(sum(self.sizes), $N_STREAMS * D_MODEL).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(sum(self.sizes)))
        self.scale = nn.Parameter(torch.full((3,), $STREAM_GATE))

    def forward(self, streams_BTNE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the branch's input (B, T, E), the weights of its output (B, T, N), and the mixing (B, T, N, N)."""
        projected = $projected(streams_BTNE, self.weight$projected_arguments)
        parts = zip(torch.split(projected, self.sizes, dim=-1), self.scale, self.bias.split(self.sizes))
        read_BTN, write_BTN, mix_BTX = (part * scale + bias for part, scale, bias in parts)
        h_BTE = ((read_BTN.sigmoid() + $STREAM_EPS)[..., None] * streams_BTNE).sum(dim=2)
        mix_BTNN = mix_BTX.view(*mix_BTX.shape[:2], $N_STREAMS, $N_STREAMS).softmax(dim=-1) + $STREAM_EPS
        # Sinkhorn's algorithm: rows and columns are scaled in turn until both sum up to 1.
        mix_BTNN = mix_BTNN / (mix_BTNN.sum(dim=-2, keepdim=True) + $STREAM_EPS)
        for _ in range($SINKHORN_ITERATIONS - 1):
            mix_BTNN = mix_BTNN / (mix_BTNN.sum(dim=-1, keepdim=True) + $STREAM_EPS)
            mix_BTNN = mix_BTNN / (mix_BTNN.sum(dim=-2, keepdim=True) + $STREAM_EPS)
        return h_BTE, 2 * write_BTN.sigmoid(), mix_BTNN
'''

_COLLAPSE = '''
class $class_name(nn.Module):
    """Weighted sum of the residual streams, after the last layer."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty($N_STREAMS, $N_STREAMS * D_MODEL).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros($N_STREAMS))
        self.scale = nn.Parameter(torch.full((1,), $STREAM_GATE))

    def forward(self, streams_BTNE: Tensor) -> Tensor:
        """Return the sum, (B, T, N, E) to (B, T, E)."""
        projected = $projected(streams_BTNE, self.weight$projected_arguments)
        read_BTN = (projected * self.scale + self.bias).sigmoid() + $STREAM_EPS
        return (read_BTN[..., None] * streams_BTNE).sum(dim=2)
'''

_BLOCK = '''
class $class_name(nn.Module):
    """One layer with several residual streams, which its branches read, mix and write."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention_norm = $attention_norm
        self.attention = $attention
        self.feedforward_norm = $feedforward_norm
        self.feedforward = $feedforward
        self.attention_mixing = $mixing
        self.feedforward_mixing = $mixing
        self.collapse = $collapse if $IS_LAST else None

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        # The output of a layer has the streams as an attribute.
        streams_BTNE: Tensor | None = getattr(x_BTE, "streams", None)
        if streams_BTNE is None:
            streams_BTNE = x_BTE[:, :, None].expand(-1, -1, $N_STREAMS, -1)
        h_BTE, write_BTN, mix_BTNN = self.attention_mixing(streams_BTNE)
        mixed_BTE = self.attention(self.attention_norm(h_BTE), positions_T, cache)
        streams_BTNE = mix_BTNN.transpose(-2, -1) @ streams_BTNE + write_BTN[..., None] * $mixed[:, :, None]
        h_BTE, write_BTN, mix_BTNN = self.feedforward_mixing(streams_BTNE)
        fed_BTE = self.feedforward(self.feedforward_norm(h_BTE))
        streams_BTNE = mix_BTNN.transpose(-2, -1) @ streams_BTNE + write_BTN[..., None] * $fed[:, :, None]
        y_BTE = streams_BTNE.mean(dim=2) if self.collapse is None else self.collapse(streams_BTNE)
        setattr(y_BTE, "streams", streams_BTNE)
        return y_BTE
'''

_FIELDS = ("streams", "iterations", "gate", "eps", "norm_eps", "dropout")


def manifold_hyper_connections(spec: ManifoldHyperConnectionsSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    streams = {"N_STREAMS": Setting(spec.streams, "residual streams")}
    gate = {"STREAM_GATE": Setting(spec.gate, "initial factor of what depends on the token in the weights of streams")}
    eps = {"STREAM_EPS": Setting(spec.eps, "added to weights of streams and their sums")}
    projected = Written(
        "projected_streams",
        fill(_PROJECTED),
        settings={"STREAM_NORM_EPS": Setting(spec.norm_eps, "added to the mean square of all streams")},
        section="block",
    )
    iterations = {"SINKHORN_ITERATIONS": Setting(spec.iterations, "iterations of Sinkhorn's algorithm")}
    mixing = Written(
        "StreamMixing",
        fill(_MIXING),
        settings={**streams, **gate, **eps, **iterations},
        parts={"projected": projected},
        section="block",
    )
    collapse = Written(
        "StreamCollapse",
        fill(_COLLAPSE),
        settings={**streams, **gate, **eps},
        parts={"projected": projected},
        section="block",
    )
    settings, mixed, fed = dropped(spec.dropout)
    is_last = context.parts.index >= context.n_layers - 1
    settings |= {**streams, "IS_LAST": Setting(is_last, "whether no layer follows")}
    parts = {**branch_parts(context), "mixing": mixing, "collapse": collapse}
    text = fill(_BLOCK, mixed=mixed, fed=fed)
    return Written("Block", text, settings=settings, parts=parts, section="block", fields=_FIELDS)
