"""Template of block `manifold-hyper-connections`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.block.manifold_hyper_connections import ManifoldHyperConnectionsSpec

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
    """Weights by which one branch reads, $verbs the residual streams of each token."""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if mixes
        self.sizes = [$N_STREAMS, $N_STREAMS, $N_STREAMS**2]
        #else
        self.sizes = [$N_STREAMS, $N_STREAMS]
        #end
        self.weight = nn.Parameter(torch.empty(sum(self.sizes), $N_STREAMS * D_MODEL).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(sum(self.sizes)))
        #if read_bias
        self.bias.data[:$N_STREAMS] = $READ_BIAS
        #end
        self.scale = nn.Parameter(torch.full((len(self.sizes),), $STREAM_GATE))

    def forward(self, streams_BTNE: Tensor) -> $returns:
        """Return the branch's input (B, T, E), the weights of its output (B, T, N)$and_mixing."""
        projected = $projected(streams_BTNE, self.weight$projected_arguments)
        projections = torch.split(projected, self.sizes, dim=-1)
        biases = torch.split(self.bias, self.sizes)
        parts = zip(projections, self.scale, biases, strict=True)
        #if mixes
        read_BTN, write_BTN, mix_BTX = (part * scale + bias for part, scale, bias in parts)
        #else
        read_BTN, write_BTN = (part * scale + bias for part, scale, bias in parts)
        #end
        h_BTE = ((read_BTN.sigmoid() + $STREAM_EPS)[..., None] * streams_BTNE).sum(dim=2)
        #if mixes
        mix_BTNN = mix_BTX.view(*mix_BTX.shape[:2], $N_STREAMS, $N_STREAMS).softmax(dim=-1) + $STREAM_EPS
        # Sinkhorn's algorithm: rows and columns are scaled in turn until both sum up to 1.
        mix_BTNN = mix_BTNN / (mix_BTNN.sum(dim=-2, keepdim=True) + $STREAM_EPS)
        for _ in range($SINKHORN_ITERATIONS - 1):
            mix_BTNN = mix_BTNN / (mix_BTNN.sum(dim=-1, keepdim=True) + $STREAM_EPS)
            mix_BTNN = mix_BTNN / (mix_BTNN.sum(dim=-2, keepdim=True) + $STREAM_EPS)
        #end
        return h_BTE, $weights$mixing
'''

_COLLAPSE = '''
class $class_name(nn.Module):
    """Weighted sum of the residual streams, after the last layer."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty($N_STREAMS, $N_STREAMS * D_MODEL).normal_(std=0.02))
        #if read_bias
        self.bias = nn.Parameter(torch.full(($N_STREAMS,), $READ_BIAS))
        #else
        self.bias = nn.Parameter(torch.zeros($N_STREAMS))
        #end
        self.scale = nn.Parameter(torch.full((1,), $STREAM_GATE))

    def forward(self, streams_BTNE: Tensor) -> Tensor:
        """Return the sum, (B, T, N, E) to (B, T, E)."""
        projected = $projected(streams_BTNE, self.weight$projected_arguments)
        read_BTN = (projected * self.scale + self.bias).sigmoid() + $STREAM_EPS
        return (read_BTN[..., None] * streams_BTNE).sum(dim=2)
'''

_BLOCK = '''
class $class_name(nn.Module):
    """One layer with several residual streams, which its branches read$and_mix write."""

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
        streams_BTNE: Tensor | None = getattr(x_BTE, "$kept_as", None)
        if streams_BTNE is None:
            streams_BTNE = x_BTE[:, :, None].expand(-1, -1, $N_STREAMS, -1)
        h_BTE, write_BTN$mix = self.attention_mixing(streams_BTNE)
        mixed_BTE = self.attention(self.attention_norm(h_BTE), positions_T, cache)
        streams_BTNE = $kept + write_BTN[..., None] * $mixed[:, :, None]
        h_BTE, write_BTN$mix = self.feedforward_mixing(streams_BTNE)
        fed_BTE = self.feedforward(self.feedforward_norm(h_BTE))
        streams_BTNE = $kept + write_BTN[..., None] * $fed[:, :, None]
        y_BTE = streams_BTNE.mean(dim=2) if self.collapse is None else self.collapse(streams_BTNE)
        y_BTE.__dict__["$kept_as"] = streams_BTNE
        return y_BTE
'''

_FIELDS = (
    "streams",
    "mixing",
    "iterations",
    "gate",
    "read_bias",
    "write_scale",
    "write_eps",
    "eps",
    "norm_eps",
    "dropout",
)


def manifold_hyper_connections(spec: ManifoldHyperConnectionsSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    mixes = spec.mixing != "none"
    streams = {"N_STREAMS": Setting(spec.streams, "residual streams")}
    common = {
        **streams,
        "STREAM_GATE": Setting(spec.gate, "initial factor of what depends on the token in the weights of streams"),
        "STREAM_EPS": Setting(spec.eps, "added to weights of streams and their sums"),
    }
    if spec.read_bias:
        common["READ_BIAS"] = Setting(spec.read_bias, "initial bias of the weights by which streams are read")
    projected = Written(
        "projected_streams",
        fill(_PROJECTED),
        settings={"STREAM_NORM_EPS": Setting(spec.norm_eps, "added to the mean square of all streams")},
        section="block",
    )
    write = {"WRITE_SCALE": Setting(spec.write_scale, "largest weight with which a stream receives a branch's output")}
    weights = "$WRITE_SCALE * write_BTN.sigmoid()"
    if spec.write_eps:
        write["WRITE_EPS"] = Setting(spec.write_eps, "added to that weight")
        weights += " + $WRITE_EPS"
    iterations = {"SINKHORN_ITERATIONS": Setting(spec.iterations, "iterations of Sinkhorn's algorithm")} if mixes else {}
    mixing = Written(
        "StreamMixing",
        fill(
            _MIXING,
            mixes=mixes,
            read_bias=bool(spec.read_bias),
            verbs="writes and mixes" if mixes else "and writes",
            returns="tuple[Tensor, Tensor, Tensor]" if mixes else "tuple[Tensor, Tensor]",
            and_mixing=", and the mixing (B, T, N, N)" if mixes else "",
            weights=weights,
            mixing=", mix_BTNN" if mixes else "",
        ),
        settings={**common, **write, **iterations},
        parts={"projected": projected},
        section="block",
    )
    collapse = Written(
        "StreamCollapse",
        fill(_COLLAPSE, read_bias=bool(spec.read_bias)),
        settings=common,
        parts={"projected": projected},
        section="block",
    )
    settings = {**streams, "IS_LAST": Setting(context.parts.index >= context.n_layers - 1, "whether no layer follows")}
    mixed, fed = "mixed_BTE", "fed_BTE"
    if spec.dropout:
        settings["BLOCK_DROPOUT"] = Setting(spec.dropout, "share of each branch's output dropped in training")
        mixed, fed = (f"F.dropout({each}, $BLOCK_DROPOUT, self.training)" for each in (mixed, fed))
    norms = ("attention_norm", "feedforward_norm")
    parts = {name: written(context.parts.norm, context, dim=Name("D_MODEL")) for name in norms}
    parts |= {"attention": written(context.parts.attention, context), "mixing": mixing, "collapse": collapse}
    parts["feedforward"] = written(context.parts.feedforward, context)
    text = fill(
        _BLOCK,
        kept_as=f"streams_{spec.streams}",  # a layer with another number of streams does not continue these
        mixed=mixed,
        fed=fed,
        mix=", mix_BTNN" if mixes else "",
        and_mix=", mix and" if mixes else " and",
        kept="mix_BTNN.transpose(-2, -1) @ streams_BTNE" if mixes else "streams_BTNE",
    )
    return Written("Block", text, settings=settings, parts=parts, section="block", fields=_FIELDS)
